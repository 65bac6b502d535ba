//! What the root is told of one child: by its owner, its prober, its log, its engine.
//!
//! Owns: nothing; turns reports into events for the core. Never: decides.

use super::RootState;
use crate::backend::container::News;
use crate::messages::{HealthReport, ModuleReport};
use crate::pump::StreamKey;
use lair_supervision::exposure::Exposure;
use lair_supervision::{ChildEvent, ChildId, NoticeKind, Origin};

use std::sync::Arc;

impl RootState {
    pub(super) async fn report(&mut self, id: &ChildId, inc: u64, report: ModuleReport) {
        let Some(known) = self.children.get_mut(id) else {
            return;
        };
        let (mut orphan, mut ended) = (false, None);
        let ends = !matches!(report, ModuleReport::Spawned(_));
        let before = (ends && known.child.inc == inc).then(|| Arc::new(known.view()));
        let event = match report {
            ModuleReport::Spawned(spawned) => {
                let identity = spawned.identity.clone();
                if known.child.inc == inc {
                    known.came_up(*spawned, self.args.clock.wall_ms());
                    orphan = !known.is_owned(inc, &self.owners);
                }
                ChildEvent::Spawned { identity }
            }
            ModuleReport::SpawnFailed { fault } => {
                known.owner_done(inc, &mut self.owners);
                ChildEvent::SpawnFailed { fault }
            }
            ModuleReport::Sight(true) => ChildEvent::SightRegained,
            ModuleReport::Sight(false) => ChildEvent::SightLost,
            ModuleReport::Exited {
                status,
                evidence,
                handle,
            } => {
                ended = handle;
                known.owner_done(inc, &mut self.owners);
                if known.child.inc == inc {
                    known.went_down(self.args.clock.wall_ms());
                }
                ChildEvent::Exited { status, evidence }
            }
        };
        let came_up = matches!(event, ChildEvent::Spawned { .. });
        let origin = known.origin_of(inc, &event);
        self.step_of(id, inc, event, origin, ended).await;
        self.keep_dossier(id, inc, before);
        if came_up {
            self.tell_shortfalls(id, inc);
        }
        if orphan {
            // Its owner's end overtook this last word of it: when that was heard of, there was no grip to bury.
            self.entomb(id);
        }
    }

    /// Tells of each limit that was asked for and does not hold.
    fn tell_shortfalls(&mut self, id: &ChildId, inc: u64) {
        let known = self.children.get(id).filter(|k| k.child.inc == inc);
        let handle = known.and_then(|k| k.handle.as_ref());
        for short in handle.map(|h| h.shortfalls()).unwrap_or_default() {
            let kind = NoticeKind::LimitNotEnforced {
                limit: short.limit.as_str().to_owned(),
                asked: short.asked,
                reason: short.why,
            };
            self.publish_for(id, inc, kind, Origin::Observed);
        }
    }

    /// Takes in what was reported or has fallen due, with why it happened.
    pub(super) async fn hear(&mut self, id: &ChildId, inc: u64, event: ChildEvent) {
        let known = self.children.get_mut(id);
        let origin = known.and_then(|known| known.origin_of(inc, &event));
        self.step(id, Some(inc), event, origin).await;
    }

    pub(super) async fn health(&mut self, id: &ChildId, inc: u64, change: HealthReport) {
        match change {
            // It crossed with what laid its probes to rest.
            HealthReport::Event(_)
                if self
                    .children
                    .get(id)
                    .is_some_and(|k| k.child.inc == inc && k.parking.rests()) => {}
            HealthReport::Event(event) => {
                self.hear(id, inc, event).await;
            }
            HealthReport::Verdict(view) => {
                let Some(known) = self.children.get_mut(id).filter(|k| k.child.inc == inc) else {
                    return;
                };
                let kind = NoticeKind::Health {
                    state: view.state.as_str().into(),
                    reason: view.reason.clone(),
                    probe: view.probe,
                };
                let news = known.health.state != view.state;
                known.health = view;
                self.show(id);
                if news {
                    self.publish(id, kind, Origin::Observed);
                }
            }
        }
    }

    pub(super) async fn exposed(&mut self, id: &ChildId, inc: u64, exposure: Exposure) {
        let Some(known) = self.children.get_mut(id) else {
            return;
        };
        if known.child.inc != inc || known.child.is_down() || known.exposure == exposure {
            return;
        }
        let kind = NoticeKind::Exposure {
            state: exposure.word().to_owned(),
            sockets: exposure.sockets().iter().map(ToString::to_string).collect(),
        };
        // That all is well is no news, unless it was not.
        let wrong = |verdict: &Exposure| matches!(verdict, Exposure::Violated(_));
        let news = wrong(&exposure) || wrong(&known.exposure);
        let ends = wrong(&exposure) && known.plan.limits.exposure_enforced;
        known.exposure = exposure;
        self.show(id);
        if news {
            self.publish(id, kind, Origin::Observed);
        }
        if ends {
            self.hear(id, inc, ChildEvent::Exposed).await;
        }
    }

    pub(super) fn log_state(
        &mut self,
        id: &ChildId,
        inc: u64,
        fault: Option<String>,
        dropped: u64,
    ) {
        let Some(known) = self.children.get_mut(id).filter(|k| k.child.inc == inc) else {
            return;
        };
        let over = fault.is_none();
        let label = if over {
            known.log_injected.take()
        } else {
            known.log_injected.clone()
        };
        let origin = label.map_or(Origin::Observed, |label| Origin::Injected { label });
        let kind = match fault {
            Some(fault) => NoticeKind::LogDegraded { fault },
            None => NoticeKind::LogRecovered { dropped },
        };
        self.publish(id, kind, origin);
    }

    /// What a container backend tells beside a module's life.
    pub(super) fn news(&mut self, id: &ChildId, inc: u64, news: News) {
        let kind = match news {
            News::Pulling(progress) => NoticeKind::Pulling { progress },
            News::Reclaimed(what) => NoticeKind::Reclaimed { what },
            News::Differs(what) => NoticeKind::Differs { what },
            News::Missed(what) => {
                let key = StreamKey {
                    module: id.shared(),
                    run: inc,
                };
                self.pump.remark(key, what.clone());
                NoticeKind::Differs { what: vec![what] }
            }
        };
        self.publish_for(id, inc, kind, Origin::Observed);
    }
}
