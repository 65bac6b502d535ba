//! The output of a container by a command that is attached to it.
//!
//! Owns: the command until it has ended. Promises: each byte of the container's is handed on, and none of the command's own.
//! Never: looks at what the bytes say.

use crate::backend::container::feed::{Feed, Stream};
use crate::backend::container::streams::KEPT;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;

/// How long an attached command may take to end, once its output has.
const LAST_BYTES: Duration = Duration::from_secs(10);
/// How long the end of a line is held back that may be the command's own.
const HELD: Duration = Duration::from_secs(1);

/// What a command adds to the container's standard output at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    Nothing,
    /// `podman attach` that succeeds.
    ALineEndOfItsOwn,
}

/// Hands a command's output on until both streams have ended, `held` first; gives the feed back, and how the command ended.
pub(super) async fn hand_on(
    mut child: Child,
    feed: Feed,
    held: Vec<u8>,
    last: Last,
) -> (Feed, Option<ExitStatus>) {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (mut to_out, mut to_err) = feed.split();
    let errors = async {
        to_err.write(Stream::Err, &held).await;
        copy(err, &mut to_err, Stream::Err).await;
    };
    let outs = async {
        match last {
            Last::Nothing => {
                copy(out, &mut to_out, Stream::Out).await;
                false
            }
            Last::ALineEndOfItsOwn => copy_but_last(out, &mut to_out).await,
        }
    };
    let (held, ()) = tokio::join!(outs, errors);
    let ended = tokio::time::timeout(LAST_BYTES, child.wait()).await;
    let ended = ended.ok().and_then(Result::ok);
    if held && !ended.is_some_and(|status| status.success()) {
        to_out.write(Stream::Out, b"\n").await;
    }
    (Feed::joined(to_out, to_err), ended)
}

async fn copy<R: AsyncRead + Unpin>(source: Option<R>, feed: &mut Feed, stream: Stream) {
    let Some(mut source) = source else { return };
    let mut buffer = vec![0; KEPT];
    while let Ok(n) = source.read(&mut buffer).await {
        if n == 0 {
            return;
        }
        feed.write(stream, &buffer[..n]).await;
    }
}

/// Hands on all but the end of a line at the very end; says whether there was one. One that comes alone is held back until
/// more comes, one behind other bytes for a moment, for the command writes its own when the container has ended.
async fn copy_but_last<R: AsyncRead + Unpin>(source: Option<R>, feed: &mut Feed) -> bool {
    let Some(mut source) = source else {
        return false;
    };
    let mut buffer = vec![0; KEPT];
    let (mut held, mut alone) = (false, false);
    loop {
        let read = source.read(&mut buffer);
        let read = match held && !alone {
            true => tokio::time::timeout(HELD, read).await,
            false => Ok(read.await),
        };
        let got = match read {
            Err(_) => {
                feed.write(Stream::Out, b"\n").await;
                held = false;
                continue;
            }
            Ok(Ok(0) | Err(_)) => return held,
            Ok(Ok(got)) => got,
        };
        if held {
            feed.write(Stream::Out, b"\n").await;
        }
        let bytes = buffer[..got].strip_suffix(b"\n");
        held = bytes.is_some();
        let bytes = bytes.unwrap_or(&buffer[..got]);
        alone = bytes.is_empty();
        feed.write(Stream::Out, bytes).await;
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use tokio::io::AsyncWriteExt;

    /// What is handed on of these pieces, each of which is read before the next comes.
    async fn handed_on(pieces: &[&str]) -> (String, bool) {
        let (feed, streams) = Feed::new().expect("pipes");
        let (mut out, _err) = feed.split();
        let (mut writer, reader) = tokio::io::duplex(64);
        let pieces: Vec<String> = pieces.iter().map(|p| (*p).to_owned()).collect();
        let write = async move {
            for piece in pieces {
                writer.write_all(piece.as_bytes()).await.expect("room");
                tokio::task::yield_now().await;
            }
        };
        let (held, ()) = tokio::join!(copy_but_last(Some(reader), &mut out), write);
        drop(out);
        let fd = streams.stdout.expect("a pipe");
        let mut text = String::new();
        let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(fd).expect("a pipe");
        pipe.read_to_string(&mut text).await.expect("text");
        (text, held)
    }

    #[tokio::test]
    async fn the_end_of_a_line_at_the_very_end_is_the_commands() {
        let held = |text: &str| (text.to_owned(), true);
        assert_eq!(handed_on(&["a\n", "\n"]).await, held("a\n"));
        assert_eq!(handed_on(&["a\n\n"]).await, held("a\n"));
        assert_eq!(handed_on(&["words", "\n"]).await, held("words"));
        assert_eq!(
            handed_on(&["a\n", "b\n", "\n", "\n"]).await,
            held("a\nb\n\n")
        );
        assert_eq!(handed_on(&["words"]).await, ("words".to_owned(), false));
    }
}
