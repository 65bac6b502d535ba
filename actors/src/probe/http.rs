//! HTTP: one request over a fresh connection; the status decides. Redirects are answers, not directions.

use super::{Finding, MAX_ANSWER, connect_failed, tcp};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use lair_manifests::launch::Errand;
use lair_supervision::ProbeOutcome;
use std::pin::pin;
use tokio::net::TcpStream;

/// Bytes of an errand's refusal that are shown.
const MAX_WORDS: usize = 200;

/// Without the query, which may hold a key.
pub(super) fn name(address: &str, port: u16, path: &str) -> String {
    format!("GET {}", url(address, port, path))
}

fn url(address: &str, port: u16, path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let colons = address.contains(':');
    let (open, close) = if colons { ("[", "]") } else { ("", "") };
    format!("http://{open}{address}{close}:{port}{path}")
}

/// Sends an errand's request and reads the answer. Without a bound in time.
pub(super) async fn send(errand: &Errand) -> Result<(), String> {
    let Errand {
        method,
        address,
        port,
        path,
        body,
        expect,
        ..
    } = errand;
    let asked = format!("{method} {}", url(address, *port, path));
    let request = Request::builder()
        .method(method.as_str())
        .uri(path)
        .header("host", host(address, *port))
        .header("user-agent", "lair")
        .header("accept", "*/*")
        .header("connection", "close");
    let request = if body.is_empty() {
        request
    } else {
        request.header("content-type", "application/json")
    };
    let request = request.body(Full::new(Bytes::from(body.clone())));
    let (Some(target), Ok(request)) = (tcp::target(address, *port), request) else {
        return Err(format!(
            "{asked} needs a numeric address and a valid method and path"
        ));
    };
    let stream = TcpStream::connect(target)
        .await
        .map_err(|e| connect_failed(&asked, &e).said)?;
    let (status, whole, head) = exchange(stream, request)
        .await
        .map_err(|e| format!("{asked} failed: {e}"))?;
    let code = status.as_u16();
    let good = expect.map_or(status.is_success(), |expected| code == expected);
    match (good, whole) {
        (true, true) => Ok(()),
        (true, false) => Err(format!("{asked} answered {code} and broke off")),
        (false, _) => Err(format!("{asked} answered {code}{}", first_line(&head))),
    }
}

/// `: its words`, or nothing.
fn first_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    let clean = line.map(|l| l.chars().filter(|c| !c.is_control()).collect::<String>());
    clean.map_or_else(String::new, |line| format!(": {line}"))
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
        Ok((status, whole, _)) => judge(&asked, status, whole, expect),
        Err(error) => Finding::new(ProbeOutcome::Failure, format!("{asked} failed: {error}")),
    }
}

fn request(address: &str, port: u16, path: &str) -> Option<Request<Empty<Bytes>>> {
    Request::get(path)
        .header("host", host(address, port))
        .header("user-agent", "lair-probe")
        .header("accept", "*/*")
        .header("connection", "close")
        .body(Empty::new())
        .ok()
        .filter(|_| path.starts_with('/'))
}

fn host(address: &str, port: u16) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// The status, whether the body came whole (or was more than we read), and how it begins.
async fn exchange<B>(
    stream: TcpStream,
    request: Request<B>,
) -> hyper::Result<(StatusCode, bool, Vec<u8>)>
where
    B: Body<Data = Bytes, Error = std::convert::Infallible> + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_ANSWER)
        .handshake(TokioIo::new(stream))
        .await?;
    let mut answer = pin!(async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let (whole, head) = read_some(response).await;
        Ok((status, whole, head))
    });
    // The connection is driven here and not by a task of its own: dropping this drops all of it.
    tokio::select! {
        answer = &mut answer => return answer,
        _ = connection => {}
    }
    answer.await
}

async fn read_some(mut response: Response<Incoming>) -> (bool, Vec<u8>) {
    let (mut read, mut head) = (0, Vec::new());
    while read < MAX_ANSWER {
        match response.frame().await {
            Some(Ok(frame)) => {
                let data = frame.data_ref().map_or(&[][..], |data| data);
                read += data.len();
                let room = MAX_WORDS - head.len();
                head.extend_from_slice(&data[..data.len().min(room)]);
            }
            Some(Err(_)) => return (false, head),
            None => return (true, head),
        }
    }
    (true, head)
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
