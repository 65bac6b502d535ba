//! Reclaims what a dead owner left behind.
//!
//! Owns: children whose owner died, until their death is proven, and those on their way to an owner. Promises: KILL to
//! the whole tree, what they had printed is in the files or counted, then the report of the end in the owner's place.
//! Never: gives up: without proof there is no report.

use crate::backend::{ChildHandle, Started};
use crate::messages::{ModuleReport, RootMsg};
use crate::module::DRAIN_WITHIN;
use crate::pump::{Pump, StreamKey};
use lair_supervision::{ChildId, StartFault};
use ractor::ActorRef;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// What came of a start, on its way to the owner that ordered it. An owner can die with this in its mailbox: what is
/// dropped on the way is buried, or reported, from here.
pub struct Birth {
    outcome: Option<Result<Started, StartFault>>,
    pump: Pump,
    root: ActorRef<RootMsg>,
    id: ChildId,
    inc: u64,
}

impl Birth {
    pub(crate) fn new(
        outcome: Result<Started, StartFault>,
        pump: Pump,
        root: ActorRef<RootMsg>,
        id: ChildId,
        inc: u64,
    ) -> Self {
        Birth {
            outcome: Some(outcome),
            pump,
            root,
            id,
            inc,
        }
    }

    /// It has arrived. There is one, until it is taken.
    pub(crate) fn take(&mut self) -> Option<Result<Started, StartFault>> {
        self.outcome.take()
    }
}

impl Drop for Birth {
    fn drop(&mut self) {
        let (root, id, inc) = (self.root.clone(), self.id.clone(), self.inc);
        match self.outcome.take() {
            // Without a runtime there is nobody to report to: dropping the grip ends the child.
            Some(Ok(started)) if Handle::try_current().is_ok() => {
                bury(started.handle.clone(), self.pump.clone(), root, id, inc);
            }
            Some(Err(fault)) => {
                let report = ModuleReport::SpawnFailed { fault };
                let _ = root.cast(RootMsg::Report { id, inc, report });
            }
            Some(Ok(_)) | None => {}
        }
    }
}

/// Ends a child whose owner is gone and tells the root when it is proven dead.
pub fn bury(
    handle: Arc<dyn ChildHandle>,
    pump: Pump,
    root: ActorRef<RootMsg>,
    id: ChildId,
    inc: u64,
) {
    handle.kill();
    tokio::spawn(async move {
        let exit = handle.exit().await;
        let log_dropped = drain(&pump, &id, inc).await;
        let report = ModuleReport::exited(exit, log_dropped, Some(handle));
        let _ = root.cast(RootMsg::Report { id, inc, report });
    });
}

/// Waits for the rest of the output, as its owner would have. A run that the pump does not know has none.
async fn drain(pump: &Pump, id: &ChildId, inc: u64) -> u64 {
    let key = StreamKey {
        module: id.shared(),
        run: inc,
    };
    let (tell, drained) = oneshot::channel();
    let asked = pump.drain(key, DRAIN_WITHIN, move |d| {
        let _ = tell.send(d.dropped.bytes);
    });
    // A pump that has ended answers nobody, and keeps nothing more.
    if asked { drained.await.unwrap_or(0) } else { 0 }
}
