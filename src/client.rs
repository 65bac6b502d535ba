//! A blocking client of the bridge, with nothing but the standard library: what `lair status` is made of.
//!
//! Promises: no thread, no async runtime; requests may be pipelined; notifications that arrive between are kept in
//! order. Never: waits forever where a timeout was set.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of calls after which their replies are read before more is written.
const AT_ONCE: usize = 16 * 1024;

/// One connection to a bridge.
pub struct Client {
    stream: UnixStream,
    path: PathBuf,
    buf: Vec<u8>,
    start: usize,
    next_id: u64,
    notes: VecDeque<Box<str>>,
}

/// Why a call has no result.
#[derive(Debug)]
pub enum CallError {
    /// Nobody listens there.
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke, or the other end does not speak the protocol.
    Broken(String),
    /// The bridge said no.
    Refused(Refusal),
}

/// An error reply.
#[derive(Clone, Debug, Deserialize)]
pub struct Refusal {
    /// JSON-RPC's number.
    pub code: i32,
    /// One sentence.
    pub message: String,
    /// Stable code and more.
    #[serde(default)]
    pub data: RefusalData,
}

/// What comes with an error.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct RefusalData {
    /// Stable string code.
    #[serde(default)]
    pub code: String,
    /// What to do now.
    #[serde(default)]
    pub help: Option<String>,
    /// What was seen.
    #[serde(default)]
    pub evidence: serde_json::Value,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Unreachable { path, source } => {
                write!(f, "no lair answers at {}: {source}", path.display())
            }
            CallError::Broken(why) => write!(f, "the connection to lair broke: {why}"),
            CallError::Refused(r) => f.write_str(&r.message),
        }
    }
}

impl std::error::Error for CallError {}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<Refusal>,
    #[serde(default)]
    method: Option<&'a str>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

/// A reply: the result's text, or the bridge's no.
pub type Reply = Result<Box<str>, CallError>;

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(path: &Path) -> Result<Self, CallError> {
        let stream = UnixStream::connect(path).map_err(|source| CallError::Unreachable {
            path: path.to_owned(),
            source,
        })?;
        Ok(Client {
            stream,
            path: path.to_owned(),
            buf: Vec::new(),
            start: 0,
            next_id: 1,
            notes: VecDeque::new(),
        })
    }

    /// The socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for no reply longer than this.
    pub fn set_timeout(&self, timeout: Option<Duration>) {
        let timeout = timeout.map(|t| t.max(Duration::from_millis(1)));
        // Fails for a zero timeout only.
        let _ = self.stream.set_read_timeout(timeout);
    }

    /// One call.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn call<P: Serialize>(&mut self, method: &str, params: &P) -> Reply {
        let mut pipe = Pipeline::default();
        pipe.add(method, params)?;
        let mut replies = self.send(pipe)?;
        replies
            .pop()
            .unwrap_or_else(|| Err(CallError::Broken("no reply".into())))
    }

    /// One call, with its result read as `R`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn get<R: serde::de::DeserializeOwned, P: Serialize>(
        &mut self,
        method: &str,
        params: &P,
    ) -> Result<R, CallError> {
        let text = self.call(method, params)?;
        serde_json::from_str(&text)
            .map_err(|e| CallError::Broken(format!("{method} answered: {e}")))
    }

    /// Several calls, as many in one write as fit; the replies in the order of the calls.
    ///
    /// # Errors
    /// The connection broke. What the bridge refused is in the replies.
    pub fn send(&mut self, pipe: Pipeline) -> Result<Vec<Reply>, CallError> {
        let mut replies = Vec::with_capacity(pipe.calls.len());
        let mut rest = pipe.calls.as_slice();
        while !rest.is_empty() {
            let (first, mut text) = (self.next_id, Vec::new());
            // The bridge reads no further while its replies are not taken: what is written at once must fit the
            // socket, or both ends would wait for each other.
            let mut many = 0;
            while text.len() < AT_ONCE && many < rest.len() {
                let (method, params) = &rest[many];
                write_call(&mut text, self.next_id, method, params);
                self.next_id += 1;
                many += 1;
            }
            self.write_all(&text)?;
            replies.extend(self.replies(first, many)?);
            rest = &rest[many..];
        }
        Ok(replies)
    }

    /// The replies to `many` calls, of which the first has the id `first`.
    fn replies(&mut self, first: u64, many: usize) -> Result<Vec<Reply>, CallError> {
        let mut replies: Vec<Option<Reply>> = (0..many).map(|_| None).collect();
        let mut missing = replies.len();
        while missing > 0 {
            let line = self.line()?;
            let parsed: Line<'_> =
                serde_json::from_str(&line).map_err(|e| CallError::Broken(e.to_string()))?;
            if parsed.method.is_some() {
                self.notes.push_back(line);
                continue;
            }
            let id = parsed.id.and_then(|id| id.get().parse::<u64>().ok());
            let slot = id.and_then(|id| usize::try_from(id.checked_sub(first)?).ok());
            let reply = match (parsed.result, parsed.error) {
                (Some(result), _) => Ok(Box::from(result.get())),
                (None, Some(refusal)) => Err(CallError::Refused(refusal)),
                (None, None) => Err(CallError::Broken("a reply without a result".into())),
            };
            match slot.and_then(|at| replies.get_mut(at)) {
                Some(slot) => {
                    missing -= usize::from(slot.is_none());
                    *slot = Some(reply);
                }
                // Not about a call: the connection as a whole was refused.
                None => return reply.map(|_| Vec::new()),
            }
        }
        Ok(replies.into_iter().flatten().collect())
    }

    /// The parameters of the next notification, as text.
    ///
    /// # Errors
    /// The connection broke.
    pub fn next_note(&mut self) -> Result<Box<str>, CallError> {
        loop {
            let line = match self.notes.pop_front() {
                Some(line) => line,
                None => self.line()?,
            };
            let parsed: Line<'_> =
                serde_json::from_str(&line).map_err(|e| CallError::Broken(e.to_string()))?;
            if let (Some(_), Some(params)) = (parsed.method, parsed.params) {
                return Ok(Box::from(params.get()));
            }
        }
    }

    /// Is a whole notification or reply here already?
    #[must_use]
    pub fn has_more(&self) -> bool {
        !self.notes.is_empty() || self.buf[self.start..].contains(&b'\n')
    }

    fn write_all(&mut self, mut text: &[u8]) -> Result<(), CallError> {
        // What is refused at the door is refused before it is read: its answer is more use than EPIPE.
        while !text.is_empty() {
            match self.stream.write(text) {
                Ok(n) => text = &text[n..],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Err(e) => return Err(CallError::Broken(e.to_string())),
            }
        }
        Ok(())
    }

    fn line(&mut self) -> Result<Box<str>, CallError> {
        let mut scanned = self.start;
        loop {
            if let Some(at) = self.buf[scanned..].iter().position(|b| *b == b'\n') {
                let end = scanned + at;
                let line = String::from_utf8_lossy(&self.buf[self.start..end]).into_owned();
                self.start = end + 1;
                return Ok(line.into_boxed_str());
            }
            self.buf.drain(..self.start);
            self.start = 0;
            scanned = self.buf.len();
            let len = self.buf.len();
            self.buf.resize(len + 16 * 1024, 0);
            let got = self.stream.read(&mut self.buf[len..]);
            self.buf.truncate(len + got.as_ref().copied().unwrap_or(0));
            match got {
                Ok(0) => {
                    return Err(CallError::Broken(format!(
                        "{} was closed",
                        self.path.display()
                    )));
                }
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    return Err(CallError::Refused(timed_out()));
                }
                Err(e) => return Err(CallError::Broken(e.to_string())),
            }
        }
    }
}

/// For those who wait for more than one thing.
impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn timed_out() -> Refusal {
    Refusal {
        code: -32_000,
        message: "no answer in time".into(),
        data: RefusalData {
            code: "timeout".into(),
            ..RefusalData::default()
        },
    }
}

/// Calls to be sent together.
#[derive(Default)]
pub struct Pipeline {
    calls: Vec<(String, Vec<u8>)>,
}

impl Pipeline {
    /// Appends a call.
    ///
    /// # Errors
    /// The parameters can't be written as JSON.
    pub fn add<P: Serialize>(&mut self, method: &str, params: &P) -> Result<(), CallError> {
        let mut params = serde_json::to_vec(params)
            .map_err(|e| CallError::Broken(format!("parameters: {e}")))?;
        // JSON that was handed over as text keeps its line ends, which can only be space between its words.
        for byte in &mut params {
            if matches!(*byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        self.calls.push((method.to_owned(), params));
        Ok(())
    }
}

fn write_call(out: &mut Vec<u8>, id: u64, method: &str, params: &[u8]) {
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id.to_string().as_bytes());
    out.extend_from_slice(br#","method":"#);
    // A string can always be written as JSON.
    let _ = serde_json::to_writer(&mut *out, method);
    out.extend_from_slice(br#","params":"#);
    out.extend_from_slice(params);
    out.extend_from_slice(b"}\n");
}

#[cfg(test)]
mod test {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    /// As the bridge does: it answers one line after the other, and reads none while its answer is not taken.
    fn answer_all(listener: &UnixListener) {
        let Ok((mut stream, _)) = listener.accept() else {
            return;
        };
        let Ok(lines) = stream.try_clone().map(|s| BufReader::new(s).lines()) else {
            return;
        };
        for (n, _) in lines.map_while(Result::ok).enumerate() {
            let reply = format!("{{\"id\":{},\"result\":\"{}\"}}\n", n + 1, "x".repeat(2000));
            if stream.write_all(reply.as_bytes()).is_err() {
                return;
            }
        }
    }

    #[test]
    fn thousands_of_calls_and_their_replies_do_not_wait_for_each_other() {
        let dir = std::env::temp_dir().join(format!("lair-client-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("folder");
        let path = dir.join("sock");
        let listener = UnixListener::bind(&path).expect("bind");
        std::thread::spawn(move || answer_all(&listener));
        let (tell, told) = std::sync::mpsc::channel();
        let asked = path.clone();
        std::thread::spawn(move || {
            let mut client = Client::connect(&asked).expect("connect");
            let mut pipe = Pipeline::default();
            for _ in 0..5000 {
                pipe.add("module.status", &serde_json::json!({ "name": "a-module" }))
                    .expect("call");
            }
            let _ = tell.send(client.send(pipe).map(|all| all.len()).ok());
        });
        let got = told.recv_timeout(Duration::from_secs(60));
        assert_eq!(got, Ok(Some(5000)));
        let _ = std::fs::remove_dir_all(dir);
    }
}
