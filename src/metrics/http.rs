//! The port for scrapers: HTTP/1.1, one answer a connection.
//!
//! Promises: a peer that is slow, silent or hostile costs a bounded time and a bounded space; a page in somebody's
//! browser that has made this machine's address its own is refused. Never: reads more of a request than its head.

use super::{Format, read};
use crate::bridge::Counters;
use crate::handle::RuntimeHandle;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Connections at a time; who comes when there are as many waits in the system's queue.
const CONNECTIONS: usize = 8;
/// Longest head of a request.
const HEAD: usize = 8 << 10;
/// How long a connection may last.
const WITHIN: Duration = Duration::from_secs(10);
/// The pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(200);

/// Listens at `at`.
///
/// # Errors
/// The system refuses.
pub async fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(at).await
}

/// Answers scrapers until it is dropped.
#[allow(clippy::disallowed_methods, reason = "real sockets live in real time")]
pub async fn serve(
    handle: RuntimeHandle,
    listener: TcpListener,
    counters: Option<Arc<Counters>>,
) -> std::convert::Infallible {
    let lan = listener.local_addr().is_ok_and(|at| !at.ip().is_loopback());
    let mut peers = JoinSet::new();
    loop {
        while peers.len() >= CONNECTIONS {
            peers.join_next().await;
        }
        let stream = tokio::select! {
            Some(_) = peers.join_next() => continue,
            got = listener.accept() => match got {
                Ok((stream, _)) => stream,
                Err(e) => {
                    tracing::warn!("can't accept a scraper: {e}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let (handle, counters) = (handle.clone(), counters.clone());
        peers.spawn(async move {
            let _ = tokio::time::timeout(WITHIN, attend(stream, &handle, counters, lan)).await;
        });
    }
}

async fn attend(
    mut stream: TcpStream,
    handle: &RuntimeHandle,
    counters: Option<Arc<Counters>>,
    lan: bool,
) -> io::Result<()> {
    let mut head = [0; HEAD];
    let answer = match read_head(&mut stream, &mut head).await? {
        None => Answer::no("431 Request Header Fields Too Large"),
        Some(head) => match judge(head, lan) {
            Err(no) => no,
            Ok((format, with_body)) => match read(handle, counters.as_ref(), format).await {
                Ok(text) => Answer {
                    status: "200 OK",
                    content_type: format.content_type(),
                    text,
                    with_body,
                },
                Err(_) => Answer::no("500 Internal Server Error"),
            },
        },
    };
    answer.write(&mut stream).await?;
    stream.shutdown().await?;
    // What the peer has still to say is taken, or its system would throw our answer away.
    while stream.read(&mut head).await? > 0 {}
    Ok(())
}

/// The head as far as its empty line; `None` if there is no room for it.
async fn read_head<'a>(
    stream: &mut TcpStream,
    space: &'a mut [u8; HEAD],
) -> io::Result<Option<&'a [u8]>> {
    let mut filled = 0;
    loop {
        let n = stream.read(&mut space[filled..]).await?;
        if n == 0 {
            let full = filled == space.len();
            return if full {
                Ok(None)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        filled += n;
        if let Some(end) = space[..filled].windows(4).position(|w| w == b"\r\n\r\n") {
            return Ok(Some(&space[..end]));
        }
    }
}

/// What a request is to be given: the format, and whether with a body.
fn judge(head: &[u8], lan: bool) -> Result<(Format, bool), Answer> {
    let bad = || Answer::no("400 Bad Request");
    let head = std::str::from_utf8(head).map_err(|_| bad())?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (first.next(), first.next(), first.next(), first.next())
    else {
        return Err(bad());
    };
    if !version.starts_with("HTTP/1.") {
        return Err(Answer::no("505 HTTP Version Not Supported"));
    }
    let (mut accept, mut host) = ("", None);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(bad)?;
        match name.to_ascii_lowercase().as_str() {
            "accept" => accept = value.trim(),
            "host" => host = Some(value.trim()),
            _ => {}
        }
    }
    if !lan && host.is_some_and(|host| !is_local(host)) {
        return Err(Answer::no("403 Forbidden"));
    }
    let path = target.split('?').next().unwrap_or_default();
    match (method, path) {
        ("GET", "/metrics") => Ok((Format::accepted(accept), true)),
        ("HEAD", "/metrics") => Ok((Format::accepted(accept), false)),
        (_, "/metrics") => Err(Answer::no("405 Method Not Allowed")),
        _ => Err(Answer::no("404 Not Found")),
    }
}

/// Does this name this machine by a name that no stranger can give it?
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

struct Answer {
    status: &'static str,
    content_type: &'static str,
    text: String,
    with_body: bool,
}

impl Answer {
    fn no(status: &'static str) -> Self {
        Answer {
            status,
            content_type: "text/plain; charset=utf-8",
            text: format!("{status}\nmetrics are at /metrics\n"),
            with_body: true,
        }
    }

    async fn write(&self, stream: &mut TcpStream) -> io::Result<()> {
        let allow = if self.status.starts_with("405") {
            "Allow: GET, HEAD\r\n"
        } else {
            ""
        };
        let head = format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}Connection: close\r\n\r\n",
            self.status,
            self.content_type,
            self.text.len()
        );
        stream.write_all(head.as_bytes()).await?;
        if self.with_body {
            stream.write_all(self.text.as_bytes()).await?;
        }
        stream.flush().await
    }
}
