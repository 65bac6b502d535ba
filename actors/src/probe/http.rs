//! HTTP: one GET over a fresh connection; the status decides. Redirects are answers, not directions.

use super::{Finding, MAX_ANSWER, connect_failed, tcp};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use lair_supervision::ProbeOutcome;
use std::pin::pin;
use tokio::net::TcpStream;

/// Without the query, which may hold a key.
pub(super) fn name(address: &str, port: u16, path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let colons = address.contains(':');
    let (open, close) = if colons { ("[", "]") } else { ("", "") };
    format!("GET http://{open}{address}{close}:{port}{path}")
}

pub(super) async fn get(address: &str, port: u16, path: &str, expect: Option<u16>) -> Finding {
    let asked = name(address, port, path);
    let (Some(target), Some(request)) = (tcp::target(address, port), request(address, port, path))
    else {
        let said = format!("{asked} needs a numeric address and a valid path");
        return Finding::new(ProbeOutcome::CouldNotRun, said);
    };
    let stream = match TcpStream::connect(target).await {
        Ok(stream) => stream,
        Err(error) => return connect_failed(&asked, &error),
    };
    match exchange(stream, request).await {
        Ok((status, whole)) => judge(&asked, status, whole, expect),
        Err(error) => Finding::new(ProbeOutcome::Failure, format!("{asked} failed: {error}")),
    }
}

fn request(address: &str, port: u16, path: &str) -> Option<Request<Empty<Bytes>>> {
    let host = if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    };
    Request::get(path)
        .header("host", host)
        .header("user-agent", "lair-probe")
        .header("accept", "*/*")
        .header("connection", "close")
        .body(Empty::new())
        .ok()
        .filter(|_| path.starts_with('/'))
}

/// The status, and whether the body came whole (or was more than we read).
async fn exchange(
    stream: TcpStream,
    request: Request<Empty<Bytes>>,
) -> hyper::Result<(StatusCode, bool)> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_ANSWER)
        .handshake(TokioIo::new(stream))
        .await?;
    let mut answer = pin!(async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        Ok((status, read_some(response).await))
    });
    // The connection is driven here and not by a task of its own: dropping this drops all of it.
    tokio::select! {
        answer = &mut answer => return answer,
        _ = connection => {}
    }
    answer.await
}

async fn read_some(mut response: Response<Incoming>) -> bool {
    let mut read = 0;
    while read < MAX_ANSWER {
        match response.frame().await {
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) => return false,
            None => return true,
        }
    }
    true
}

fn judge(asked: &str, status: StatusCode, whole: bool, expect: Option<u16>) -> Finding {
    let status = status.as_u16();
    let good = match expect {
        Some(expected) => status == expected,
        None => (200..400).contains(&status),
    };
    if good && !whole {
        let said = format!("{asked} answered {status} and broke off");
        return Finding::new(ProbeOutcome::Failure, said);
    }
    let said = format!("{asked} answered {status}");
    if good {
        Finding::new(ProbeOutcome::Success, said)
    } else {
        Finding::new(ProbeOutcome::Failure, said)
    }
}
