//! Streams of an engine that are read to their end: output of a command, kept lines, a log.
//!
//! Owns: nothing. Promises: memory is bounded whatever the engine sends. Never: waits for anything but bytes.

use super::engine::{ConnectionEnd, HandedOn, HandingOn};
use super::fault::{EngineFault, EngineFaultKind};
use super::feed::Feed;
use super::http::{Coming, Hijacked};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

/// Output of a command that is kept; the rest is read and dropped.
pub(super) const KEPT: usize = 64 << 10;
/// Longest line of a pull's progress.
const MAX_LINE: usize = 64 << 10;

/// Reads a framed stream to its end and adds the first bytes of both streams to `kept`, in the order in which they came.
///
/// # Errors
/// A frame that is none.
pub(super) async fn first_bytes<R: AsyncRead + Unpin>(
    mut source: R,
    kept: &mut Vec<u8>,
) -> Result<(), EngineFault> {
    let (mut header, mut buffer) = ([0; 8], [0; 4096]);
    while source.read_exact(&mut header).await.is_ok() {
        let mut left = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if header[0] > 3 {
            let what = "a frame of its output belongs to no stream";
            return Err(EngineFault::new(EngineFaultKind::Nonsense, what));
        }
        while left > 0 {
            let most = left.min(buffer.len());
            match source.read(&mut buffer[..most]).await {
                Ok(0) | Err(_) => return Ok(()),
                Ok(n) => {
                    let room = KEPT.saturating_sub(kept.len()).min(n);
                    kept.extend_from_slice(&buffer[..room]);
                    left -= n;
                }
            }
        }
    }
    Ok(())
}

/// Hands each line of an answer over; one without an end is nonsense.
///
/// # Errors
/// The connection's, or the first that `each` returns.
pub(super) async fn lines(
    mut coming: Coming,
    mut each: impl FnMut(&[u8]) -> Result<(), EngineFault>,
) -> Result<(), EngineFault> {
    let mut rest = Vec::new();
    while let Some(data) = coming.next().await? {
        rest.extend_from_slice(&data);
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if !line.trim_ascii().is_empty() {
                each(&line)?;
            }
        }
        if rest.len() > MAX_LINE {
            let what = "a line of its progress has no end";
            return Err(EngineFault::new(EngineFaultKind::Nonsense, what));
        }
    }
    match rest.trim_ascii().is_empty() {
        true => Ok(()),
        false => each(&rest),
    }
}

/// Hands the output of a container on, as its engine frames it on a connection.
pub(super) fn of_connection(hijacked: Hijacked, container: String, mut feed: Feed) -> HandingOn {
    let (tell, ended) = oneshot::channel();
    tokio::spawn(async move {
        let Hijacked {
            source,
            connection,
            peer,
        } = hijacked;
        let end = match feed.frames(source).await {
            Ok(()) => peer.map_or(ConnectionEnd::Unsure, |p| ConnectionEnd::of(p.lives())),
            Err(fault) => {
                tracing::debug!(container, %fault, "its output broke off");
                ConnectionEnd::Broken
            }
        };
        drop(connection);
        // Who does not care any more lets the pipes go with it.
        let _ = tell.send(HandedOn { feed, end });
    });
    ended
}

/// Hands the streams in a framed answer on as it comes.
pub(super) fn of_answer(coming: Coming, feed: Feed) -> HandingOn {
    let (tell, ended) = oneshot::channel();
    tokio::spawn(async move {
        let _ = tell.send(hand_on(coming, feed).await);
    });
    ended
}

async fn hand_on(mut coming: Coming, mut feed: Feed) -> HandedOn {
    let (reader, mut writer) = tokio::io::duplex(KEPT);
    let copy = async move {
        loop {
            match coming.next().await {
                Ok(Some(data)) if writer.write_all(&data).await.is_ok() => {}
                Ok(None) => return true,
                Ok(Some(_)) | Err(_) => return false,
            }
        }
    };
    // The reader goes with the last frame that is one, so that the writer is held up by nobody.
    let frames = async { feed.frames(reader).await.is_ok() };
    let (came, framed) = tokio::join!(copy, frames);
    let end = ConnectionEnd::of(came && framed);
    HandedOn { feed, end }
}
