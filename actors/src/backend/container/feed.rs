//! From an engine's framed stream to two pipes that the pump reads.
//!
//! Owns: the pipes' write ends and the decoder of the 8-byte frames that Podman and Docker share. Promises: bytes go on
//! as they came; memory is bounded whatever a header claims; a reader that is slow slows the engine down, one that is
//! gone is no error. Never: looks at the bytes.

use super::fault::{EngineFault, EngineFaultKind};
use crate::backend::Streams;
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::pipe::Sender;

/// Bytes moved at once, at most.
const CHUNK: usize = 64 << 10;
/// Bytes that a container's stream costs while it says little.
const LITTLE: usize = 4 << 10;

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
    out: Option<Sender>,
    err: Option<Sender>,
}

impl Feed {
    /// Two pipes: what is written to the feed is read from the streams.
    ///
    /// # Errors
    /// When no descriptors are left.
    pub fn new() -> Result<(Feed, Streams), EngineFault> {
        let (out, stdout) = pipe()?;
        let (err, stderr) = pipe()?;
        let feed = Feed {
            out: Some(out),
            err: Some(err),
        };
        let streams = Streams {
            stdout: Some(stdout),
            stderr: Some(stderr),
        };
        Ok((feed, streams))
    }

    /// Hands bytes on, waiting for room. A reader that is gone swallows them.
    pub async fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let pipe = match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        };
        if let Some(open) = pipe
            && open.write_all(bytes).await.is_err()
        {
            *pipe = None;
        }
    }

    /// One feed a stream, for two that come apart.
    #[must_use]
    pub fn split(self) -> (Feed, Feed) {
        let out = Feed {
            out: self.out,
            err: None,
        };
        let err = Feed {
            out: None,
            err: self.err,
        };
        (out, err)
    }

    /// Nobody reads either stream any more.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.out.is_none() && self.err.is_none()
    }

    /// Until nobody reads either stream any more.
    async fn given_up(&self) {
        for pipe in [&self.out, &self.err].into_iter().flatten() {
            // Told of a pipe whose other end is closed; a pipe that can't be watched is as good as closed.
            let _ = pipe.ready(Interest::ERROR).await;
        }
    }

    /// Reads frames to the end of `source`: 1 byte stream (0 or 1 output, 2 error), 3 bytes zero, 4 bytes length.
    ///
    /// # Errors
    /// The connection's, or a frame that is none.
    pub async fn frames<R: AsyncRead + Unpin>(mut self, mut source: R) -> Result<(), EngineFault> {
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
                    Ok(0) => return Ok(()),
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
