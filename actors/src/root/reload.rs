//! A module that is loaded again: what of the new plan holds at once, and what waits for its next run.
//!
//! Promises: a run keeps what it was started with, and is never ended for a new manifest; loading the same again changes
//! nothing and tells nothing. Never: starts or stops a module.

use super::RootState;
use super::table::Managed;
use crate::backend::Backend;
use crate::messages::{HealthMsg, Loaded};
use crate::pump::StreamKey;
use lair_manifests::launch::LaunchPlan;
use lair_supervision::{ChildId, NoticeKind, Origin, Phase};
use std::sync::Arc;

/// What the next run begins with.
pub(super) struct Next {
    pub plan: Arc<LaunchPlan>,
    pub backend: Arc<dyn Backend>,
}

impl Managed {
    /// The plan that was asked for last, in force or not.
    fn asked_for(&self) -> &LaunchPlan {
        self.next.as_ref().map_or(&self.plan, |next| &next.plan)
    }

    /// Something of the module exists, or is being made, that was started with the plan.
    fn is_begun(&self) -> bool {
        match self.child.phase {
            Phase::Down(_) | Phase::Waiting { .. } => false,
            Phase::Spawning { .. } | Phase::Up { .. } | Phase::Stopping { .. } => true,
        }
    }
}

impl RootState {
    /// Takes a new plan for a module that is known.
    pub(super) fn reload(
        &mut self,
        id: &ChildId,
        plan: Arc<LaunchPlan>,
        backend: Arc<dyn Backend>,
        origin: Origin,
    ) -> Option<Loaded> {
        let known = self.children.get_mut(id)?;
        if known.asked_for().same_as(&plan) {
            // Its file may be written or lie elsewhere.
            match &mut known.next {
                Some(next) => next.plan = plan,
                None => known.plan = plan,
            }
            self.join_group(id);
            self.show(id);
            return Some(Loaded::Same);
        }
        if !known.is_begun() {
            known.replace(plan, backend);
            self.join_group(id);
            self.show(id);
            self.publish(id, NoticeKind::Loaded, origin);
            return Some(Loaded::Replaced);
        }
        let change = known.plan.difference(&plan);
        let before = known.plan.clone();
        known.plan = Arc::new(before.revised(&plan));
        let waits = !change.next_start.is_empty();
        known.next = waits.then_some(Next { plan, backend });
        self.join_group(id);
        self.take_live(id, &before);
        self.show(id);
        let words = |parts: &[&str]| parts.iter().map(|p| (*p).to_owned()).collect();
        let kind = NoticeKind::Changed {
            live: words(&change.live),
            next_start: words(&change.next_start),
        };
        self.publish(id, kind, origin);
        Some(if waits {
            Loaded::RestartNeeded
        } else {
            Loaded::Updated
        })
    }

    /// Writes down the plan in force: what the next life of lair must know of what runs. A plan that waits for its run is
    /// written when that begins.
    pub(super) fn keep_plan(&mut self, id: &ChildId) {
        if let (Some(ledger), Some(known)) = (&mut self.args.ledger, self.children.get(id)) {
            ledger.loaded(&known.plan);
        }
    }

    /// Tells those who work by the old plan.
    fn take_live(&self, id: &ChildId, before: &LaunchPlan) {
        let Some(known) = self.children.get(id) else {
            return;
        };
        if known.plan.logs != before.logs {
            let key = StreamKey {
                module: id.shared(),
                run: known.child.inc,
            };
            self.pump
                .revise(key, crate::module::policy(&known.plan.logs));
        }
        let up = matches!(known.child.phase, Phase::Up { .. });
        if up
            && !known.plan.asks_the_same(before)
            && let Some(watch) = known.watch()
        {
            let _ = self.health.cast(HealthMsg::Revise(Box::new(watch)));
        }
    }
}
