//! An engine that talks nonsense: a socket that answers every question in one chosen way.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What it does with a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonsense {
    /// 500 and a reason as JSON.
    Refuses,
    /// 500 and a page of HTML.
    RefusesInHtml,
    /// 200 and half of a JSON text.
    Truncated,
    /// 200 and JSON of another type.
    WrongType,
    /// 200 and JSON with all the right names and all the wrong types.
    WrongFields,
    /// 200 and a body that does not end.
    EndlessBody,
    /// A head that does not end.
    EndlessHead,
    /// 500 and a reason that does not end.
    EndlessRefusal,
    /// The connection is cut in the middle of the body.
    CutInBody,
    /// The connection is closed at once.
    Closes,
    /// It does not speak HTTP.
    Ssh,
    /// It says nothing.
    Silent,
    /// It takes every connection over and sends frames that belong to no stream.
    BadFrames,
    /// It takes every connection over and promises frames of 4 GiB.
    HugeFrames,
}

impl Nonsense {
    pub const ALL: [Nonsense; 14] = [
        Nonsense::Refuses,
        Nonsense::RefusesInHtml,
        Nonsense::Truncated,
        Nonsense::WrongType,
        Nonsense::WrongFields,
        Nonsense::EndlessBody,
        Nonsense::EndlessHead,
        Nonsense::EndlessRefusal,
        Nonsense::CutInBody,
        Nonsense::Closes,
        Nonsense::Ssh,
        Nonsense::Silent,
        Nonsense::BadFrames,
        Nonsense::HugeFrames,
    ];
}

/// Sense for some questions: from `POST /containers/create HTTP/1.1` to the whole answer.
pub type Sense = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// An answer of sense, as JSON.
pub fn json(code: &str, body: &str) -> String {
    let len = body.len();
    format!(
        "HTTP/1.1 {code}\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\r\n{body}"
    )
}

/// The connection belongs to both sides from now on.
pub const UPGRADE: &str = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";

/// The socket and its threads, which end with the test's process.
pub struct FakeEngine {
    sense: Arc<Mutex<Sense>>,
    pub socket: PathBuf,
    mode: Arc<Mutex<Nonsense>>,
    open: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
}

impl FakeEngine {
    pub fn start(folder: &Path, mode: Nonsense) -> Self {
        let socket = folder.join("fake.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let mode = Arc::new(Mutex::new(mode));
        let (open, sent) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let none: Sense = Arc::new(|_| None);
        let sense = Arc::new(Mutex::new(none));
        let shared = (mode.clone(), open.clone(), sent.clone(), sense.clone());
        std::thread::spawn(move || {
            for peer in listener.incoming().map_while(Result::ok) {
                let (mode, open, sent, sense) = shared.clone();
                open.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let mode = *mode.lock().expect("the mode");
                    let sense = sense.lock().expect("the sense").clone();
                    let _ = answer(peer, mode, &sense, &sent);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        FakeEngine {
            sense,
            socket,
            mode,
            open,
            sent,
        }
    }

    /// For connections from now on.
    pub fn set(&self, mode: Nonsense) {
        *self.mode.lock().expect("the mode") = mode;
    }

    /// Which questions get sense all the same, from now on.
    pub fn talk_sense(&self, sense: impl Fn(&str) -> Option<String> + Send + Sync + 'static) {
        *self.sense.lock().expect("the sense") = Arc::new(sense);
    }

    /// Connections that somebody still holds.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Bytes that were sent without end.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }
}

const FIELDS: &str = r#"{"Id": 7, "id": [], "State": "up", "Config": 3, "HostConfig": [], "Name": {}, "ServerVersion": 1, "SecurityOptions": 2,
"host": "x", "version": [], "Stats": 4, "Error": 5, "cpu_stats": true, "memory_stats": "x", "message": 3, "StatusCode": "x", "User": 5, "Labels": 1}"#;

fn answer(
    mut peer: UnixStream,
    mode: Nonsense,
    sense: &Sense,
    sent: &AtomicUsize,
) -> std::io::Result<()> {
    let upgrade = UPGRADE;
    // A client that is greeted before it has asked gets no sense.
    let head = match mode {
        Nonsense::Ssh => String::new(),
        _ => read_question(&mut peer)?,
    };
    if let Some(good) = sense(head.lines().next().unwrap_or_default()) {
        say(&mut peer, &good)?;
        return match good.starts_with(UPGRADE) {
            true => wait_for_end(&mut peer),
            false => Ok(()),
        };
    }
    if mode == Nonsense::Closes {
        return Ok(());
    }
    let reason = r#"{"cause":"x","message":"the disk is on fire\nand more","response":500}"#;
    match mode {
        Nonsense::Refuses => say(&mut peer, &json("500 Internal Server Error", reason)),
        Nonsense::RefusesInHtml => say(
            &mut peer,
            &json("500 Oops", "<html><body>Bad gateway</body></html>"),
        ),
        Nonsense::Truncated => say(
            &mut peer,
            &json("200 OK", r#"[{"Id": "abc", "State": {"Sta"#),
        ),
        Nonsense::WrongType => say(&mut peer, &json("200 OK", "\"yes\"")),
        Nonsense::WrongFields => say(&mut peer, &json("200 OK", FIELDS)),
        Nonsense::EndlessBody => endless(
            &mut peer,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[",
            sent,
        ),
        Nonsense::EndlessHead => endless(&mut peer, "HTTP/1.1 200 OK\r\nX-Long: ", sent),
        Nonsense::EndlessRefusal => {
            endless(&mut peer, "HTTP/1.1 500 Oops\r\n\r\n{\"message\":\"", sent)
        }
        Nonsense::CutInBody => say(
            &mut peer,
            "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n[{\"Id\":",
        ),
        Nonsense::Closes => Ok(()),
        Nonsense::Ssh => say(&mut peer, "SSH-2.0-OpenSSH_9.2p1\r\n"),
        Nonsense::Silent => wait_for_end(&mut peer),
        Nonsense::BadFrames => {
            say(&mut peer, upgrade)?;
            peer.write_all(&[7, 1, 2, 3, 0, 0, 0, 9])?;
            wait_for_end(&mut peer)
        }
        Nonsense::HugeFrames => {
            say(&mut peer, upgrade)?;
            peer.write_all(&[1, 0, 0, 0, 255, 255, 255, 255])?;
            endless(&mut peer, "", sent)
        }
    }
}

/// The head of a question; its body is read and dropped.
fn read_question(peer: &mut UnixStream) -> std::io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if peer.read(&mut byte)? == 0 {
            break;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_it = name.eq_ignore_ascii_case("content-length");
        value.trim().parse().ok().filter(|_| is_it)
    });
    let mut body = vec![0; length.unwrap_or(0)];
    peer.read_exact(&mut body)?;
    Ok(head)
}

fn say(peer: &mut UnixStream, text: &str) -> std::io::Result<()> {
    peer.write_all(text.as_bytes())
}

/// Until the other side has had enough.
fn endless(peer: &mut UnixStream, head: &str, sent: &AtomicUsize) -> std::io::Result<()> {
    say(peer, head)?;
    let chunk = [b' '; 16 << 10];
    loop {
        peer.write_all(&chunk)?;
        sent.fetch_add(chunk.len(), Ordering::SeqCst);
    }
}

fn wait_for_end(peer: &mut UnixStream) -> std::io::Result<()> {
    peer.set_read_timeout(Some(Duration::from_secs(120)))?;
    let mut rest = [0; 4096];
    while peer.read(&mut rest)? > 0 {}
    Ok(())
}
