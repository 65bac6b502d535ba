//! Asking a module to let go of memory that it can do without, and to take it again.
//!
//! Owns: the order of things: the root is asked, the request is sent by a task of its own, the root is told. Promises: what
//! was begun is ended and told, whether or not the caller waits for it.

use super::words::denied;
use super::{Refused, RuntimeHandle};
use lair_actors::messages::{RootMsg, Unfit};
use lair_actors::park::{Came, Scales};
use lair_actors::view::View;
use lair_manifests::launch::Parking;
use lair_supervision::{ChildId, DeniedReason, NoticeKind, Origin, Phase};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Bytes before a request and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Bytes {
    /// Before; `null`: unknown.
    pub before: Option<u64>,
    /// After, when it changed no more; `null`: unknown.
    pub after: Option<u64>,
    /// How much less it is; below zero: more; `null`: unknown.
    pub freed: Option<i64>,
}

/// What parking or waking a module came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ParkReport {
    /// The module.
    pub name: String,
    /// Its run.
    pub run: u64,
    /// Number of the newest event when it was answered.
    pub seq: u64,
    /// Memory, as its status shows it.
    pub memory: Bytes,
    /// Memory of GPUs; unknown for a module that asked for none.
    pub gpu_memory: Bytes,
    /// Milliseconds. Parked: until it let go of no more. Woken: until it served, or, where it can't be asked, until it answered.
    pub took_ms: u64,
    /// Woken: does it serve, as its own probe says? `null`: parked, or it has no probe that can be asked.
    pub ready: Option<bool>,
}

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Park,
    Wake,
}

impl Which {
    fn done(self) -> &'static str {
        match self {
            Which::Park => "parked",
            Which::Wake => "woken",
        }
    }
}

/// Tells the root that nothing came of it, unless it was told what did.
struct Underway {
    handle: RuntimeHandle,
    id: ChildId,
    inc: u64,
    told: bool,
}

impl Drop for Underway {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        if let Ok(root) = self.handle.root_ref() {
            let _ = root.cast(RootMsg::ParkEnds {
                id: self.id.clone(),
                inc: self.inc,
                outcome: None,
                origin: Origin::Observed,
                reply: None,
            });
        }
    }
}

impl RuntimeHandle {
    /// Sends the request that its manifest declares as `park`, and measures until it lets go of no more memory. Parked
    /// already is fine: it is asked again.
    ///
    /// # Errors
    /// `unknown_module`, `park_undeclared`, `not_running`, `park_busy`; `park_failed` with what the request came to: nothing
    /// has changed then, as far as lair is concerned.
    pub async fn park(&self, name: &str, origin: Origin) -> Result<ParkReport, Refused> {
        self.errand(name, Which::Park, origin).await
    }

    /// Sends the request that its manifest declares as `wake`, and asks it until it serves. Awake already is fine: somebody
    /// else may have parked it.
    ///
    /// # Errors
    /// As [`RuntimeHandle::park`].
    pub async fn wake(&self, name: &str, origin: Origin) -> Result<ParkReport, Refused> {
        self.errand(name, Which::Wake, origin).await
    }

    async fn errand(
        &self,
        name: &str,
        which: Which,
        origin: Origin,
    ) -> Result<ParkReport, Refused> {
        let view = self.view(name)?;
        let plan = view
            .plan
            .park
            .clone()
            .ok_or_else(|| undeclared(name, which))?;
        if which == Which::Wake && plan.wake.is_none() {
            return Err(undeclared(name, which));
        }
        let (id, inc) = (view.plan.spec.id.clone(), view.child.inc);
        let of = id.clone();
        self.call(|reply| RootMsg::ParkBegins { id: of, inc, reply })
            .await?
            .map_err(|why| unfit(why, name))?;
        let underway = Underway {
            handle: self.clone(),
            id,
            inc,
            told: false,
        };
        // A caller who leaves must not leave the root in the dark.
        let work = tokio::spawn(carry_out(underway, view, plan, which, origin));
        work.await
            .map_err(|e| Refused::new("internal", format!("the request broke off: {e}")))?
    }

    /// Resolves when this run is no longer up.
    async fn run_over(&self, name: &str, inc: u64) {
        let mut newest = self.newest_event();
        loop {
            newest.mark_unchanged();
            let up = |view: &Arc<View>| {
                view.child.inc == inc && matches!(view.child.phase, Phase::Up { .. })
            };
            if !self.view(name).is_ok_and(|view| up(&view)) || newest.changed().await.is_err() {
                return;
            }
        }
    }
}

async fn carry_out(
    mut underway: Underway,
    view: Arc<View>,
    plan: Arc<Parking>,
    which: Which,
    origin: Origin,
) -> Result<ParkReport, Refused> {
    let (handle, id, inc) = (underway.handle.clone(), underway.id.clone(), underway.inc);
    let inner = &handle.inner;
    let scales = Scales {
        clock: inner.clock.clone(),
        sampler: inner.sampler.clone(),
        gpus: inner.gpus.clone(),
    };
    let name = id.as_str();
    let work = async {
        match (which, &plan.wake) {
            (Which::Wake, Some(wake)) => scales.wake(view.clone(), wake).await,
            _ => scales.park(view.clone(), &plan.park).await,
        }
    };
    let came = tokio::select! {
        biased;
        came = work => came.map_err(|why| failed(name, which, &why))?,
        () = handle.run_over(name, inc) => return Err(denied(DeniedReason::NotRunning, name)),
    };
    let outcome = Some(told(which, &came));
    let of = id.clone();
    let seq = handle
        .call(|reply| RootMsg::ParkEnds {
            id: of,
            inc,
            outcome,
            origin,
            reply: Some(reply),
        })
        .await?;
    underway.told = true;
    Ok(report(name, inc, seq.0, &came))
}

fn told(which: Which, came: &Came) -> NoticeKind {
    let (freed, gpu_freed) = came.after.less_than(came.before);
    let took_ms = millis(came.took);
    match which {
        Which::Park => NoticeKind::Parked {
            freed,
            gpu_freed,
            took_ms,
        },
        Which::Wake => NoticeKind::Woke {
            ready: came.ready,
            took_ms,
        },
    }
}

fn report(name: &str, run: u64, seq: u64, came: &Came) -> ParkReport {
    let Came { before, after, .. } = came;
    let (freed, gpu_freed) = after.less_than(*before);
    let bytes = |before, after, freed| Bytes {
        before,
        after,
        freed,
    };
    ParkReport {
        name: name.to_owned(),
        run,
        seq,
        memory: bytes(before.memory, after.memory, freed),
        gpu_memory: bytes(before.gpu_memory, after.gpu_memory, gpu_freed),
        took_ms: millis(came.took),
        ready: came.ready,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn undeclared(name: &str, which: Which) -> Refused {
    let (key, help) = match which {
        Which::Park => (
            "park",
            "if it has such a request: `runtime: { park: { http: { port: api, path: /sleep } } }`",
        ),
        Which::Wake => (
            "wake",
            "its next use wakes it, or else declare the request: `runtime: { wake: { http: ... } }` beside `park`",
        ),
    };
    let why = format!("the manifest of `{name}` declares no `runtime.{key}`");
    Refused::new("park_undeclared", why).help(help)
}

fn unfit(why: Unfit, name: &str) -> Refused {
    let (why, help) = match why {
        Unfit::NotRunning => return denied(DeniedReason::NotRunning, name),
        Unfit::Underway => (
            "is being parked or woken already",
            "wait for the answer to that; `lair events --since 1` shows it",
        ),
        Unfit::Frozen => ("is frozen and would not answer", "`lair thaw NAME` first"),
        Unfit::ComingUp => (
            "has not come up yet",
            "`lair wait NAME --for ready`, then repeat the request",
        ),
    };
    Refused::new("park_busy", format!("`{name}` {why}")).help(help)
}

fn failed(name: &str, which: Which, why: &str) -> Refused {
    let message = format!("`{name}` could not be {}: {why}", which.done());
    Refused::new("park_failed", message).help(
        "lair shows it as it was before; see `lair logs NAME`, and whether the program was started with what this request needs",
    )
}
