//! A small HTTP client over a Unix socket, for what no client library keeps its promise.
//!
//! Owns: one connection a request. Promises: every body that is read whole has a bound; a stream that is given up is
//! closed. Never: retries, follows, or keeps a connection.

use super::fault::{EngineFault, EngineFaultKind};
use super::service::{Service, ServiceOrder};
use crate::facts::stays;
use crate::keeper::ProcessId;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use procfs::process::Process;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

/// Bytes of an answer that is read whole. The longest honest one is a list of all containers.
const MAX_ANSWER: usize = 8 << 20;
/// Bytes of a refusal that are looked at.
const MAX_REFUSAL: usize = 16 << 10;

/// Where an engine listens.
#[derive(Clone)]
pub(super) struct Wire {
    place: Arc<Place>,
}

struct Place {
    sockets: Vec<PathBuf>,
    service: Option<Service>,
    /// The socket that answered first: containers are where they were made.
    chosen: OnceLock<PathBuf>,
}

/// An answer that was read whole.
pub(super) struct Reply {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Reply {
    /// The body as a value of a known shape.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, EngineFault> {
        serde_json::from_slice(&self.body).map_err(|e| {
            let what = format!("its answer is not what was asked for: {e}");
            EngineFault::new(EngineFaultKind::Nonsense, &what)
        })
    }

    /// The engine's refusal as a fault; `otherwise` for words that nobody knows.
    pub fn refusal(&self, otherwise: EngineFaultKind) -> EngineFault {
        #[derive(serde::Deserialize)]
        struct Refusal {
            #[serde(default)]
            message: String,
        }
        let head = &self.body[..self.body.len().min(MAX_REFUSAL)];
        let words = serde_json::from_slice::<Refusal>(head)
            .map(|r| r.message)
            .unwrap_or_else(|_| String::from_utf8_lossy(head).into_owned());
        if words.trim().is_empty() {
            let code = self.status.as_u16();
            return EngineFault::new(otherwise, &format!("it answered {code} without a word"));
        }
        EngineFault::of_words(&words, otherwise)
    }

    /// Success, or else the refusal.
    pub fn good(self, otherwise: EngineFaultKind) -> Result<Self, EngineFault> {
        if self.status.is_success() || self.status == StatusCode::NOT_MODIFIED {
            Ok(self)
        } else {
            Err(self.refusal(otherwise))
        }
    }
}

/// A request's answer that is still coming. Dropping it closes the connection.
pub(super) struct Coming {
    response: Response<Incoming>,
    _connection: JoinSet<()>,
}

impl Coming {
    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, EngineFault> {
        loop {
            match self.response.frame().await {
                None => return Ok(None),
                Some(Err(e)) => return Err(broken(&e)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Reads it to its end, or to the bound.
    pub async fn whole(mut self) -> Result<Reply, EngineFault> {
        let status = self.status();
        let mut body = Vec::new();
        while let Some(data) = self.next().await? {
            if body.len() + data.len() > MAX_ANSWER {
                let what = format!("its answer is longer than {MAX_ANSWER} bytes");
                return Err(EngineFault::new(EngineFaultKind::Nonsense, &what));
            }
            body.extend_from_slice(&data);
        }
        let body = body.into();
        Ok(Reply { status, body })
    }
}

impl Wire {
    /// The first of these sockets that can be connected to, and from then on only that; a service to start where none
    /// of them can.
    pub fn new(sockets: Vec<PathBuf>, service: Option<ServiceOrder>) -> Self {
        Wire {
            place: Arc::new(Place {
                sockets,
                service: service.map(Service::new),
                chosen: OnceLock::new(),
            }),
        }
    }

    /// A connection, for a client that speaks for itself.
    pub async fn connect(&self) -> Result<UnixStream, EngineFault> {
        let Place {
            sockets,
            service,
            chosen,
        } = &*self.place;
        let mut why = EngineFault::new(EngineFaultKind::Unreachable, "no place to look for it");
        let own = service.as_ref().map(Service::socket);
        let tried = match chosen.get() {
            Some(chosen) if own == Some(chosen) => &[],
            Some(chosen) => std::slice::from_ref(chosen),
            None => sockets.as_slice(),
        };
        for socket in tried {
            match UnixStream::connect(socket).await {
                Ok(stream) => {
                    let _ = chosen.set(socket.clone());
                    return Ok(stream);
                }
                Err(e) => {
                    let doing = format!("reach the engine at {}", socket.display());
                    let fault = EngineFault::of_io(&doing, &e);
                    // That a socket is there and closed to this user says more than that another is missing.
                    if why.kind != EngineFaultKind::Denied {
                        why = fault;
                    }
                }
            }
        }
        match service {
            Some(service) if chosen.get().is_none_or(|c| own == Some(c)) => {
                let stream = service.connect().await?;
                let _ = chosen.set(service.socket().clone());
                Ok(stream)
            }
            _ => Err(why),
        }
    }

    /// One question, one bounded answer.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Reply, EngineFault> {
        self.ask(method, path, body).await?.whole().await
    }

    /// One question whose answer may take for ever.
    pub async fn stream(
        &self,
        method: Method,
        path: &str,
        kind: EngineFaultKind,
    ) -> Result<Coming, EngineFault> {
        let coming = self.ask(method, path, None).await?;
        match coming.status().is_success() {
            true => Ok(coming),
            false => Err(coming.whole().await?.refusal(kind)),
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Coming, EngineFault> {
        let request = request(method, path, body.as_ref(), false)?;
        let (response, connection, _) = self.send(request).await?;
        Ok(Coming {
            response,
            _connection: connection,
        })
    }

    /// A question after which the connection belongs to both sides. `Err` holds the refusal.
    pub async fn hijack(&self, path: &str, body: Option<Value>) -> Result<Hijacked, EngineFault> {
        let request = request(Method::POST, path, body.as_ref(), true)?;
        let (response, connection, peer) = self.send(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let coming = Coming {
                response,
                _connection: connection,
            };
            let reply = coming.whole().await?;
            return Err(reply.refusal(EngineFaultKind::Refused));
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(|e| broken(&e))?;
        Ok(Hijacked {
            source: TokioIo::new(upgraded),
            connection,
            peer,
        })
    }

    async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, JoinSet<()>, Option<Peer>), EngineFault> {
        let stream = self.connect().await?;
        let peer = Peer::of(&stream);
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(256 << 10)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| broken(&e))?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let _ = connection.with_upgrades().await;
        });
        let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
        Ok((response, driver, peer))
    }
}

/// A connection that was taken over from HTTP.
pub(super) struct Hijacked {
    pub source: TokioIo<Upgraded>,
    /// What keeps it alive.
    pub connection: JoinSet<()>,
    /// Who is at its other end.
    pub peer: Option<Peer>,
}

/// The process that listens at the other end of a connection (unix(7), `SO_PEERCRED`).
#[derive(Clone, Copy)]
pub(super) struct Peer(ProcessId);

impl Peer {
    /// `None`: it can't be seen, or is who opens sockets for others (systemd.socket(5)).
    fn of(stream: &UnixStream) -> Option<Self> {
        let pid = stream.peer_cred().ok()?.pid().filter(|pid| *pid > 1)?;
        let start_ticks = Process::new(pid).ok()?.stat().ok()?.starttime;
        Some(Peer(ProcessId { pid, start_ticks }))
    }

    /// It is neither gone nor on its way.
    pub fn lives(self) -> bool {
        let stat = Process::new(self.0.pid).and_then(|process| process.stat());
        stat.is_ok_and(|stat| stat.starttime == self.0.start_ticks && stays(&stat))
    }
}

fn request(
    method: Method,
    path: &str,
    body: Option<&Value>,
    upgrade: bool,
) -> Result<Request<Full<Bytes>>, EngineFault> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "engine")
        .header("user-agent", "lair");
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    if upgrade {
        request = request
            .header("connection", "Upgrade")
            .header("upgrade", "tcp");
    }
    let body = body.map(|b| Bytes::from(b.to_string())).unwrap_or_default();
    request.body(Full::new(body)).map_err(|e| {
        EngineFault::new(
            EngineFaultKind::Refused,
            &format!("a request can't be made: {e}"),
        )
    })
}

/// What hyper says of a connection: cut, or not HTTP.
fn broken(e: &hyper::Error) -> EngineFault {
    if e.is_parse() {
        return EngineFault::new(
            EngineFaultKind::Nonsense,
            &format!("it does not speak HTTP: {e}"),
        );
    }
    EngineFault::new(
        EngineFaultKind::Unreachable,
        &format!("the connection to it broke: {e}"),
    )
}

/// A word as part of a path or a query.
pub(super) fn escape(word: &str) -> String {
    let mut escaped = String::with_capacity(word.len());
    for byte in word.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
