//! Survivors of an earlier life: taken into the table, with what the ledger says of them; and the ledger kept.
//!
//! Promises: a survivor is up, under its own run number, before anybody is answered; what was wanted of it when lair
//! died is still wanted; what was known of it and is gone is said to have ended, as nobody knows how.

use super::RootState;
use super::apply::PARKED;
use super::park::Parking;
use crate::backend::Started;
use crate::ledger::{Mark, Standing};
use crate::messages::Spawned;
use crate::module::{ModuleActor, ModuleArgs, policy};
use crate::pump::{self, StreamKey};
use crate::vram::Vram;
use lair_supervision::{
    ChildEvent, ChildId, ChildIdentity, ExitEvidence, ExitStatus, Origin, Phase, Readiness,
};
use ractor::Actor;

impl RootState {
    /// Takes a started child of an earlier life over. `false`: it can't be, and is ended.
    pub(super) async fn adopt(
        &mut self,
        id: &ChildId,
        inc: u64,
        started: Started,
        mark: Option<Mark>,
    ) -> bool {
        let now_ms = self.args.clock.wall_ms();
        let mark = mark.filter(|mark| mark.run == inc);
        let Some(known) = self.children.get_mut(id).filter(|k| k.child.is_down()) else {
            return false;
        };
        let Started {
            identity,
            streams,
            ready,
            handle,
        } = started;
        let key = StreamKey {
            module: id.shared(),
            run: inc,
        };
        let streams = pump::Streams {
            stdout: streams.stdout,
            stderr: streams.stderr,
        };
        let log = self
            .pump
            .attach(key, policy(&known.plan.logs), streams, true)
            .inspect_err(|fault| tracing::error!(module = %id, %fault, "its output is not kept"))
            .ok();
        let args = ModuleArgs {
            order: crate::backend::StartOrder {
                id: id.clone(),
                inc,
                plan: known.plan.clone(),
            },
            backend: known.backend.clone(),
            root: self.me.clone(),
            pump: self.pump.clone(),
            vram: Vram::of(&known.plan, inc, &self.args.gpus, &self.args.clock),
            log_proven: true,
            found: Some((handle.clone(), log.clone())),
        };
        let Ok((owner, _)) = Actor::spawn_linked(None, ModuleActor, args, self.me.get_cell()).await
        else {
            return false;
        };
        self.owners.insert(owner.get_id(), (id.clone(), inc));
        known.owner = Some((inc, owner));
        known.served = mark.as_ref().is_some_and(|mark| mark.ready);
        let noted = mark.as_ref().map(|mark| mark.since_ms);
        let since_ms = noted.filter(|ms| *ms > 0).unwrap_or(now_ms);
        let spawned = Spawned {
            identity: identity.clone(),
            handle,
            ready,
            log: log.clone(),
        };
        known.came_up(spawned, since_ms);
        let adopted = ChildEvent::Adopted { inc, identity };
        self.step(id, None, adopted, Some(Origin::Observed)).await;
        let Some(known) = self.children.get_mut(id) else {
            return false;
        };
        if known.child.inc != inc || known.child.is_down() {
            // Of a run that is history already.
            known.owner_done(inc, &mut self.owners);
            known.went_down(now_ms);
            return false;
        }
        known.adopted(log, since_ms);
        let rests = known.plan.park.as_ref().is_some_and(|p| p.rests);
        known.parking = Parking::found(mark.as_ref().and_then(|m| m.parked_ms), rests);
        let parked = known.parking.rests();
        let frozen = known.handle.as_ref().is_some_and(|h| h.is_frozen());
        self.show(id);
        self.go_on(id, inc, mark).await;
        if parked {
            self.rest(id, inc, PARKED);
        }
        if frozen {
            // As the kernel has it, whatever was written down.
            let peer = "an earlier life of lair".to_owned();
            let origin = Some(Origin::Requested { peer });
            self.step(id, None, ChildEvent::FreezeRequested, origin)
                .await;
        }
        true
    }

    /// What was true of it, and what was being done with it, when lair died.
    async fn go_on(&mut self, id: &ChildId, inc: u64, mark: Option<Mark>) {
        let Some(mark) = mark else { return };
        let awaited = |phase: &Phase| {
            let Phase::Up { readiness, .. } = phase else {
                return false;
            };
            matches!(readiness, Readiness::Awaiting { .. })
        };
        let awaits = self
            .children
            .get(id)
            .is_some_and(|k| awaited(&k.child.phase));
        if mark.ready && awaits {
            self.step(id, Some(inc), ChildEvent::BecameReady, None)
                .await;
        }
        let peer = "an earlier life of lair".to_owned();
        let origin = Some(Origin::Requested { peer });
        self.forget_past(id);
        match mark.standing {
            Standing::Stopping => {
                let stop = ChildEvent::StopRequested { grace: None };
                self.step(id, None, stop, origin).await;
            }
            Standing::Restarting => {
                let restart = ChildEvent::RestartRequested { grace: None };
                self.step(id, None, restart, origin).await;
            }
            Standing::Down | Standing::Starting | Standing::Up | Standing::Waiting => {}
        }
    }

    /// A module that the ledger knows and no survivor stands for: what ran has ended unseen, what was about to be
    /// started is started.
    pub(super) async fn go_on_without(&mut self, id: &ChildId, mark: Mark) {
        if self.children.get(id).is_none_or(|k| !k.child.is_down()) {
            return;
        }
        match (mark.standing, mark.identity) {
            (Standing::Up | Standing::Stopping | Standing::Restarting, Some(identity)) => {
                self.ended_unseen(id, mark.run, mark.standing, identity)
                    .await;
            }
            (Standing::Starting | Standing::Restarting | Standing::Waiting, _) => {
                self.forget_past(id);
                let origin = Some(Origin::Observed);
                self.step(id, None, ChildEvent::StartRequested, origin)
                    .await;
            }
            (Standing::Down | Standing::Up | Standing::Stopping, _) => {}
        }
    }

    /// It ran, and is neither with the keeper nor was its end noted: how it ended, nobody can say any more.
    async fn ended_unseen(
        &mut self,
        id: &ChildId,
        run: u64,
        standing: Standing,
        identity: ChildIdentity,
    ) {
        let adopted = ChildEvent::Adopted {
            inc: run,
            identity: identity.clone(),
        };
        self.step(id, None, adopted, Some(Origin::Observed)).await;
        let mark = Mark {
            run,
            standing,
            ready: false,
            identity: Some(identity),
            since_ms: 0,
            parked_ms: None,
        };
        self.go_on(id, run, Some(mark)).await;
        let exited = ChildEvent::Exited {
            status: ExitStatus::Unknown,
            evidence: ExitEvidence::default(),
        };
        self.hear(id, run, exited).await;
    }

    /// From here on the ledger has what this life does with it.
    fn forget_past(&mut self, id: &ChildId) {
        if let Some(known) = self.children.get_mut(id) {
            known.past = None;
        }
    }

    /// It was gone on with, or can't be.
    pub(super) fn gone_on(&mut self, id: &ChildId) {
        self.forget_past(id);
        self.note(id);
    }

    /// Writes into the ledger where a child stands, if that is news.
    pub(super) fn note(&mut self, id: &ChildId) {
        let Some(ledger) = &mut self.args.ledger else {
            return;
        };
        let Some(known) = self.children.get_mut(id).filter(|k| k.past.is_none()) else {
            return;
        };
        let since = known
            .started_ms()
            .unwrap_or_else(|| self.args.clock.wall_ms());
        let mark = Mark::of(&known.child, since, known.parking.since_ms);
        if known.noted.as_ref().is_some_and(|noted| noted.same(&mark)) {
            return;
        }
        ledger.stands(id, &mark);
        known.noted = Some(mark);
        if ledger.is_long() {
            let marked = self.children.values().map(|known| {
                let since = known.started_ms().unwrap_or_default();
                let now = || Mark::of(&known.child, since, known.parking.since_ms);
                let mark = known.past.as_deref().cloned().unwrap_or_else(now);
                (&*known.plan, mark)
            });
            ledger.compact(marked);
        }
    }
}
