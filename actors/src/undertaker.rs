//! Reclaims what a dead owner left behind.
//!
//! Owns: children whose owner died, until their death is proven. Promises: KILL to the whole tree, then the report of
//! the end in the owner's place. Never: gives up: without proof there is no report.

use crate::backend::ChildHandle;
use crate::messages::{ModuleReport, RootMsg};
use lair_supervision::{ChildId, ExitEvidence};
use ractor::ActorRef;
use std::sync::Arc;

/// Ends a child whose owner is gone and tells the root when it is proven dead.
pub fn bury(handle: Arc<dyn ChildHandle>, root: ActorRef<RootMsg>, id: ChildId, inc: u64) {
    handle.kill();
    tokio::spawn(async move {
        let exit = handle.exit().await;
        handle.release();
        let evidence = ExitEvidence {
            oom: exit.oom,
            core: exit.core,
            by_us: exit.by_us,
            leftover: exit.leftover,
            log_dropped: 0,
        };
        let report = ModuleReport::Exited {
            status: exit.status,
            evidence,
        };
        let _ = root.cast(RootMsg::Report { id, inc, report });
    });
}
