//! From an engine's framed stream to two pipes that the pump reads.
//!
//! Owns: the pipes' write ends and the decoder of the 8-byte frames that Podman and Docker share. Promises: bytes go on
//! as they came, and their number and the newest of them are remembered, so that it can be gone on elsewhere; memory is
//! bounded whatever a header claims; a reader that is slow slows the engine down, one that is gone is no error. Never: looks at
//! the bytes.

use super::fault::{EngineFault, EngineFaultKind};
use crate::backend::Streams;
use crate::files::read::Recorded;
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::pipe::Sender;

/// Bytes moved at once, at most.
const CHUNK: usize = 64 << 10;
/// Bytes that a container's stream costs while it says little.
const LITTLE: usize = 4 << 10;

/// Newest bytes that are remembered of a stream: enough to be found again in an engine's log.
const NEWEST: usize = 2 << 10;

/// Which stream a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// The write ends of a container's output. Dropping it ends both streams.
pub struct Feed {
    out: Side,
    err: Side,
}

struct Side {
    pipe: Option<Sender>,
    seen: Recorded,
    passed: u64,
}

impl Side {
    fn new(pipe: Option<Sender>, seen: Recorded) -> Self {
        Side {
            pipe,
            seen,
            passed: 0,
        }
    }

    fn note(&mut self, bytes: &[u8]) {
        self.passed += bytes.len() as u64;
        let Recorded { tail, total } = &mut self.seen;
        *total = total.map(|total| total + bytes.len() as u64);
        let newest = &bytes[bytes.len().saturating_sub(NEWEST)..];
        if newest.len() + tail.len() > 2 * NEWEST {
            let known = NEWEST.saturating_sub(newest.len()).min(tail.len());
            tail.drain(..tail.len() - known);
            tail.shrink_to(2 * NEWEST);
        }
        tail.extend_from_slice(newest);
    }
}

impl Feed {
    /// Two pipes: what is written to the feed is read from the streams.
    ///
    /// # Errors
    /// When no descriptors are left.
    pub fn new() -> Result<(Feed, Streams), EngineFault> {
        Feed::behind([Recorded::nothing(), Recorded::nothing()])
    }

    /// The same for a container of whose output this is known already.
    ///
    /// # Errors
    /// When no descriptors are left.
    pub fn behind([known_out, known_err]: [Recorded; 2]) -> Result<(Feed, Streams), EngineFault> {
        let (out, stdout) = pipe()?;
        let (err, stderr) = pipe()?;
        let feed = Feed {
            out: Side::new(Some(out), known_out),
            err: Side::new(Some(err), known_err),
        };
        let streams = Streams {
            stdout: Some(stdout),
            stderr: Some(stderr),
        };
        Ok((feed, streams))
    }

    /// Hands bytes on, waiting for room. A reader that is gone swallows them.
    pub async fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let side = self.side(stream);
        side.note(bytes);
        if let Some(open) = &mut side.pipe
            && open.write_all(bytes).await.is_err()
        {
            side.pipe = None;
        }
    }

    fn side(&mut self, stream: Stream) -> &mut Side {
        match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        }
    }

    /// What was handed on of a stream.
    #[must_use]
    pub fn seen(&self, stream: Stream) -> &Recorded {
        match stream {
            Stream::Out => &self.out.seen,
            Stream::Err => &self.err.seen,
        }
    }

    /// One feed a stream, for two that come apart.
    #[must_use]
    pub fn split(self) -> (Feed, Feed) {
        let none = || Side::new(None, Recorded::nothing());
        let out = Feed {
            out: self.out,
            err: none(),
        };
        let err = Feed {
            out: none(),
            err: self.err,
        };
        (out, err)
    }

    /// One again of the two that [`Feed::split`] made.
    #[must_use]
    pub fn joined(out: Feed, err: Feed) -> Feed {
        Feed {
            out: out.out,
            err: err.err,
        }
    }

    /// Bytes that this one has handed on, of both streams.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.out.passed + self.err.passed
    }

    /// Nobody reads either stream any more.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.out.pipe.is_none() && self.err.pipe.is_none()
    }

    /// Until nobody reads either stream any more.
    pub async fn given_up(&self) {
        for pipe in [&self.out.pipe, &self.err.pipe].into_iter().flatten() {
            // Told of a pipe whose other end is closed; a pipe that can't be watched is as good as closed.
            let _ = pipe.ready(Interest::ERROR).await;
        }
    }

    /// Reads frames to the end of `source`: 1 byte stream (0 or 1 output, 2 error), 3 bytes zero, 4 bytes length.
    ///
    /// # Errors
    /// The connection's, or a frame that is none.
    pub async fn frames<R: AsyncRead + Unpin>(&mut self, mut source: R) -> Result<(), EngineFault> {
        let mut buffer = vec![0; LITTLE];
        loop {
            let mut header = [0; 8];
            // An engine that says nothing more must not be listened to for ever.
            let read = tokio::select! {
                biased;
                read = source.read_exact(&mut header) => read,
                () = self.given_up() => return Ok(()),
            };
            match read {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(e) => return Err(EngineFault::of_io("read its output", &e)),
            }
            let (stream, mut left) = frame(header)?;
            if left > buffer.len() {
                buffer.resize(CHUNK, 0);
            }
            while left > 0 {
                let most = left.min(buffer.len());
                match source.read(&mut buffer[..most]).await {
                    Ok(0) => {
                        let what = "its output ended within a frame";
                        return Err(EngineFault::new(EngineFaultKind::Unreachable, what));
                    }
                    Ok(n) => {
                        self.write(stream, &buffer[..n]).await;
                        left -= n;
                    }
                    Err(e) => return Err(EngineFault::of_io("read its output", &e)),
                }
            }
            if self.is_unread() {
                return Ok(());
            }
        }
    }
}

/// What a frame's header says.
fn frame(header: [u8; 8]) -> Result<(Stream, usize), EngineFault> {
    let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let stream = match header[0] {
        0 | 1 if header[1..4] == [0; 3] => Stream::Out,
        2 if header[1..4] == [0; 3] => Stream::Err,
        _ => {
            let what = "a frame of its output belongs to no stream";
            return Err(EngineFault::new(EngineFaultKind::Nonsense, what));
        }
    };
    Ok((stream, usize::try_from(length).unwrap_or(usize::MAX)))
}

fn pipe() -> Result<(Sender, std::os::fd::OwnedFd), EngineFault> {
    let make = || {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok((Sender::from_owned_fd(writer)?, reader))
    };
    make().map_err(|e: io::Error| EngineFault::of_io("make a pipe", &e))
}
