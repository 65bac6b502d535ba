//! A child's end, told once to everybody who waits for it.
//!
//! Promises: who asks later is told the same; whoever would tell and is gone has told that nothing is known. There is
//! one for each run, so it is small: a channel for changing values has room for hundreds of waiters.

use super::{BoxFuture, ChildExit};
use lair_supervision::{ExitStatus, Tri};
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;

/// The side that tells. Dropping it tells an end of which nothing is known.
#[derive(Default)]
pub(crate) struct LastWord(Arc<Told>);

#[derive(Default)]
struct Told {
    exit: OnceLock<ChildExit>,
    bell: Notify,
}

impl LastWord {
    /// The first word stands.
    pub fn tell(&self, exit: ChildExit) {
        let _ = self.0.exit.set(exit);
        self.0.bell.notify_waiters();
    }

    pub fn is_told(&self) -> bool {
        self.0.exit.get().is_some()
    }

    /// The end, as soon as it is told.
    pub fn wait(&self) -> BoxFuture<ChildExit> {
        let told = self.0.clone();
        Box::pin(async move {
            loop {
                // A bell that rings from here on is heard.
                let rung = told.bell.notified();
                if let Some(exit) = told.exit.get() {
                    return exit.clone();
                }
                rung.await;
            }
        })
    }
}

impl Drop for LastWord {
    fn drop(&mut self) {
        self.tell(ChildExit {
            status: ExitStatus::Unknown,
            oom: Tri::Unknown,
            core: None,
            by_us: None,
            leftover: Vec::new(),
        });
    }
}

#[cfg(test)]
mod test {
    use super::LastWord;
    use crate::backend::ChildExit;
    use lair_supervision::{ExitStatus, Tri};

    fn exit(code: i32) -> ChildExit {
        ChildExit {
            status: ExitStatus::Code(code),
            oom: Tri::No,
            core: Some(false),
            by_us: None,
            leftover: Vec::new(),
        }
    }

    #[tokio::test]
    async fn an_end_is_told_to_all_who_wait_and_who_come_later_and_once() {
        let word = LastWord::default();
        let waiting: Vec<_> = (0..3).map(|_| tokio::spawn(word.wait())).collect();
        tokio::task::yield_now().await;
        assert!(!word.is_told());
        word.tell(exit(7));
        word.tell(exit(8));
        let late = word.wait();
        drop(word);
        for waiter in waiting {
            assert_eq!(waiter.await.expect("told"), exit(7));
        }
        assert_eq!(late.await, exit(7));
    }

    #[tokio::test]
    async fn whoever_would_tell_and_is_gone_knows_nothing() {
        let word = LastWord::default();
        let waiting = tokio::spawn(word.wait());
        tokio::task::yield_now().await;
        drop(word);
        assert_eq!(waiting.await.expect("told").status, ExitStatus::Unknown);
    }
}
