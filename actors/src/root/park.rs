//! Modules that are parked and woken: who does it asks here before, and tells here what came of it.
//!
//! Promises: one at a time for each module; the end of a run forgets it; of a module without `wake` nobody could say for
//! how long it stays parked, so nobody says that it is. Never: sends a request.

use super::RootState;
use super::apply::PARKED;
use crate::messages::Unfit;
use lair_supervision::{ChildId, NoticeKind, Origin, Phase, Readiness, Seq};

/// Where a run stands with that.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Parking {
    /// Wall clock, ms: since when it is parked.
    pub since_ms: Option<u64>,
    /// It is being parked or woken.
    underway: bool,
    /// What its manifest said of its probes when it was parked.
    asked_to_rest: bool,
}

impl Parking {
    /// Of a run of an earlier life.
    pub fn found(since_ms: Option<u64>, rests: bool) -> Self {
        Parking {
            since_ms,
            underway: false,
            asked_to_rest: rests,
        }
    }

    /// Do its probes rest?
    pub fn rests(&self) -> bool {
        self.asked_to_rest && (self.underway || self.since_ms.is_some())
    }
}

impl RootState {
    pub(super) fn park_begins(&mut self, id: &ChildId, inc: u64) -> Result<(), Unfit> {
        let known = self.children.get_mut(id).ok_or(Unfit::NotRunning)?;
        let Phase::Up {
            readiness, frozen, ..
        } = &known.child.phase
        else {
            return Err(Unfit::NotRunning);
        };
        if known.child.inc != inc {
            return Err(Unfit::NotRunning);
        }
        if frozen.is_some() {
            return Err(Unfit::Frozen);
        }
        if matches!(readiness, Readiness::Awaiting { .. }) {
            return Err(Unfit::ComingUp);
        }
        if known.parking.underway {
            return Err(Unfit::Underway);
        }
        let rested = known.parking.rests();
        known.parking.underway = true;
        if known.parking.since_ms.is_none() {
            known.parking.asked_to_rest = known.plan.park.as_ref().is_some_and(|p| p.rests);
        }
        if known.parking.rests() && !rested {
            // Before it is asked: none of its probes may fail for it.
            self.rest(id, inc, PARKED);
        }
        Ok(())
    }

    pub(super) fn park_ends(
        &mut self,
        id: &ChildId,
        inc: u64,
        outcome: Option<NoticeKind>,
        origin: Origin,
    ) -> Seq {
        let wall_ms = self.args.clock.wall_ms();
        let current = |known: &&mut Box<super::table::Managed>| {
            known.child.inc == inc && matches!(known.child.phase, Phase::Up { .. })
        };
        if let Some(known) = self.children.get_mut(id).filter(current) {
            let rested = known.parking.rests();
            known.parking.underway = false;
            let can_be_woken = known.plan.park.as_ref().is_some_and(|p| p.wake.is_some());
            match &outcome {
                Some(NoticeKind::Parked { .. }) if can_be_woken => {
                    known.parking.since_ms.get_or_insert(wall_ms);
                }
                Some(NoticeKind::Woke { .. }) => known.parking.since_ms = None,
                _ => {}
            }
            let goes_on = rested && !known.parking.rests();
            self.note(id);
            self.show(id);
            if let Some(kind) = outcome {
                self.publish_for(id, inc, kind, origin);
            }
            if goes_on {
                self.watch(id);
            }
        }
        self.args.events.newest()
    }
}
