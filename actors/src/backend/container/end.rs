//! How a container ended.
//!
//! Owns: the two watchers, the kernel's and the engine's, and the weighing of their words. Promises: an engine that is
//! away ends nothing; the end of a stream or of a connection is no end; the code is read before the container is
//! removed; what nobody can tell is unknown. Never: takes the engine's OOM flag alone for "no".

use super::cgroup::Counter;
use super::engine::{ContainerFacts, ContainerState};
use super::{QUICK, Shared, pause, within};
use crate::backend::ChildExit;
use crate::keeper::Ending;
use crate::keeper::orphan::Watch;
use lair_supervision::{ExitStatus, Tri};
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at an engine that has not noticed yet.
const LOOK: Duration = Duration::from_millis(20);
/// Between two questions to an engine that is away.
const AGAIN: Duration = Duration::from_millis(500);
/// How long an engine that answers may take to notice an end that the kernel has told.
const NOTICE: Duration = Duration::from_secs(10);

/// What is known of an end.
pub(super) struct End {
    /// The kernel's word for the first process.
    kernel: Ending,
    /// The engine's code.
    code: Option<i64>,
    /// The engine's OOM flag; `None` where it knows nothing of the container any more.
    flag: Option<bool>,
    /// Processes of its cgroup that the OOM killer ended.
    kills: Option<u64>,
}

impl End {
    /// As the module's exit. `init`: its first process is the engine's, which tells a signal as 128 and its number.
    pub fn as_exit(&self, by_us: Option<i32>, init: bool) -> ChildExit {
        let oom_seen = self.kills.is_some_and(|n| n > 0) || self.flag == Some(true);
        let (status, core) = self.status(by_us, init, oom_seen);
        let failed = status != ExitStatus::Code(0);
        let oom = match (oom_seen, self.kills) {
            (true, _) if failed && by_us != Some(libc::SIGKILL) => Tri::Yes,
            (true, _) | (false, Some(_)) => Tri::No,
            // Only KILL, or a program that passes one on, can be the OOM killer's.
            (false, None) => match status {
                ExitStatus::Code(137) | ExitStatus::Signal(libc::SIGKILL) | ExitStatus::Unknown
                    if by_us != Some(libc::SIGKILL) =>
                {
                    Tri::Unknown
                }
                _ => Tri::No,
            },
        };
        ChildExit {
            status,
            oom,
            core,
            by_us,
            // The kernel ends a process namespace with its first process.
            leftover: Vec::new(),
        }
    }

    fn status(&self, by_us: Option<i32>, init: bool, oom: bool) -> (ExitStatus, Option<bool>) {
        let code = match self.kernel {
            Ending::Signal { signal, core } => return (ExitStatus::Signal(signal), Some(core)),
            Ending::Code(code) if !init => return (ExitStatus::Code(code), Some(false)),
            Ending::Code(code) => Some(i64::from(code)),
            Ending::Unknown => self.code,
        };
        // 128 and a number is how engines and inits tell a signal, and what a program may also return by itself: it is
        // taken for a signal only if there is another witness to it.
        match code.and_then(|c| i32::try_from(c).ok()) {
            Some(code) if by_us.is_some_and(|s| code == 128 + s) => {
                (ExitStatus::Signal(code - 128), None)
            }
            Some(137) if oom => (ExitStatus::Signal(libc::SIGKILL), Some(false)),
            // 128 and more may be an init's word for a signal, and a signal may dump core.
            Some(code) => (ExitStatus::Code(code), (code < 128).then_some(false)),
            None => (ExitStatus::Unknown, None),
        }
    }
}

/// Resolves when the container has ended, by the word of the kernel, or of the engine where the kernel can't see it.
pub(super) async fn await_end(
    shared: &Arc<Shared>,
    id: &str,
    watch: Option<Watch>,
    mut ooms: Option<Counter>,
) -> End {
    let by_kernel = async {
        match watch {
            Some(watch) => watch.ended().await,
            None => std::future::pending().await,
        }
    };
    let kernel = tokio::select! {
        biased;
        ending = by_kernel => ending,
        () = by_engine(shared, id) => Ending::Unknown,
    };
    let kills = ooms.as_mut().and_then(Counter::kills);
    // The kernel's word is exact and does not wait for an engine to tidy up; grace would run out meanwhile.
    let facts = match (kernel, kills) {
        (Ending::Code(_) | Ending::Signal { .. }, Some(_)) => None,
        _ => confirmed(shared, id, kernel != Ending::Unknown).await,
    };
    End {
        kernel,
        code: facts.as_ref().and_then(|f| f.exit_code),
        flag: facts.as_ref().map(|f| f.oom_killed),
        kills,
    }
}

/// Until the engine says, and shows, that it has ended.
async fn by_engine(shared: &Arc<Shared>, id: &str) {
    loop {
        let waited = shared.engine.wait(id).await;
        if let Ok(facts) = within(QUICK, "inspect it", shared.engine.inspect(id)).await {
            match facts.map(|f| f.state) {
                None | Some(ContainerState::Exited) => return,
                Some(_) => {}
            }
        }
        // Away, or mistaken: ask again, but not at once.
        let _ = waited;
        pause(AGAIN).await;
    }
}

/// The engine's word on an end. If the kernel has told it, an engine that is away is not waited for.
async fn confirmed(shared: &Arc<Shared>, id: &str, known: bool) -> Option<ContainerFacts> {
    let ask = async {
        loop {
            match within(QUICK, "inspect it", shared.engine.inspect(id)).await {
                Ok(None) => return None,
                Ok(Some(facts)) if facts.state == ContainerState::Exited => return Some(facts),
                Ok(Some(_)) => pause(LOOK).await,
                Err(fault) => {
                    if fault.kind.is_absence() && known {
                        return None;
                    }
                    pause(AGAIN).await;
                }
            }
        }
    };
    if known && !shared.presence.is_here() {
        return None;
    }
    match tokio::time::timeout(NOTICE, ask).await {
        Ok(facts) => facts,
        // Its monitor may be dead: then the engine never notices.
        Err(_) => {
            tracing::warn!(
                container = id,
                "it has ended, and the engine has not noticed"
            );
            None
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn end(kernel: Ending, code: Option<i64>) -> End {
        End {
            kernel,
            code,
            flag: Some(false),
            kills: Some(0),
        }
    }

    #[test]
    fn a_code_that_looks_like_a_signal_is_a_code_unless_something_else_tells_of_the_signal() {
        let status = |end: End, by_us, init| end.as_exit(by_us, init).status;
        let killed = Ending::Signal {
            signal: 9,
            core: false,
        };
        assert_eq!(
            status(end(killed, Some(137)), None, false),
            ExitStatus::Signal(9)
        );
        assert_eq!(
            status(end(Ending::Code(137), Some(137)), None, false),
            ExitStatus::Code(137)
        );
        assert_eq!(
            status(end(Ending::Unknown, Some(143)), None, false),
            ExitStatus::Code(143)
        );
        assert_eq!(
            status(end(Ending::Unknown, Some(143)), Some(15), false),
            ExitStatus::Signal(15)
        );
        assert_eq!(
            status(end(Ending::Code(143), Some(143)), Some(15), true),
            ExitStatus::Signal(15)
        );
        assert_eq!(
            status(end(Ending::Unknown, None), None, false),
            ExitStatus::Unknown
        );
    }

    #[test]
    fn a_kill_is_the_oom_killers_by_the_kernels_count_and_not_by_the_engines_silence() {
        let killed = Ending::Signal {
            signal: 9,
            core: false,
        };
        let oom = |kills, flag, by_us| {
            let end = End {
                kernel: killed,
                code: Some(137),
                flag,
                kills,
            };
            end.as_exit(by_us, false).oom
        };
        assert_eq!(oom(Some(1), Some(false), None), Tri::Yes);
        assert_eq!(oom(Some(0), Some(false), None), Tri::No);
        assert_eq!(oom(None, Some(false), None), Tri::Unknown);
        assert_eq!(oom(None, Some(true), None), Tri::Yes);
        assert_eq!(oom(None, None, Some(9)), Tri::No);
    }
}
