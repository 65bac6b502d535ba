//! What a module says by itself: its ready descriptor, its notify socket, its log lines.

use super::{KINDS, Watched};
use crate::backend::ReadySource;
use crate::health::actor::Context;
use crate::health::worker::{Armed, Running};
use crate::health::{OnLine, Tick, What};
use crate::messages::HealthMsg;
use crate::probe::ready::{ReadyListener, Said};
use crate::probe::{Look, slack};
use lair_manifests::launch::ProbeAction;
use lair_supervision::probe::Reached;
use lair_supervision::{ProbeKind, ProbeOutcome, Uptime};
use regex_lite::Regex;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// After the ready descriptor was closed: time for the module to have ended instead.
const LAST_BREATH: Duration = Duration::from_millis(300);

impl Watched {
    /// Takes a ready source over.
    pub(super) fn listen(&mut self, source: ReadySource, context: &Context) {
        let clock = context.args.clock.clone();
        match ReadyListener::start(source, self.handle.tree(), clock) {
            Ok(listener) => self.source = Some(Arc::new(listener)),
            Err(error) => {
                let said = format!("its ready source can't be listened to: {error}");
                for kind in self.told_kinds().collect::<Vec<_>>() {
                    let look = Look::told(ProbeOutcome::CouldNotRun, said.clone());
                    self.count(kind, look, context);
                }
            }
        }
    }

    /// Follows the ready source and the log lines, from now on or again.
    pub(super) fn follow(&mut self, context: &Context) {
        if let Some(source) = &self.source {
            let mut said = source.subscribe();
            let me = context.me.clone();
            let (id, inc) = (self.id.clone(), self.inc);
            let task = tokio::spawn(async move {
                while said.changed().await.is_ok() {
                    let what = Tick(What::Said);
                    let id = id.clone();
                    if me.cast(HealthMsg::Tick { id, inc, what }).is_err() {
                        break;
                    }
                }
            });
            self.tasks.push(Running(task.abort_handle()));
        }
        self.watch_lines(context);
    }

    fn watch_lines(&mut self, context: &Context) {
        let mut patterns = Vec::new();
        for (kind, worker) in &self.workers {
            if let ProbeAction::Log { pattern } = &worker.action
                && !self.lines.matched(*kind)
            {
                patterns.push((*kind, pattern.clone()));
            }
        }
        if patterns.is_empty() {
            return;
        }
        // One watch for all of them: the pump has room for one.
        let joined: Vec<_> = patterns.iter().map(|(_, p)| format!("(?:{p})")).collect();
        let watching = self.on_line(&patterns, context).and_then(|on_line| {
            let logs = &context.args.logs;
            logs.watch_pattern(&self.id, self.inc, &joined.join("|"), on_line)
        });
        if let Err(why) = watching {
            for (kind, _) in patterns {
                let said = format!("its log lines can't be watched: {why}");
                self.count(kind, Look::told(ProbeOutcome::CouldNotRun, said), context);
            }
        }
    }

    fn on_line(
        &self,
        patterns: &[(ProbeKind, String)],
        context: &Context,
    ) -> Result<OnLine, String> {
        let mut open = Vec::new();
        for (kind, pattern) in patterns {
            let pattern = Regex::new(pattern).map_err(|error| error.to_string())?;
            open.push((*kind, pattern));
        }
        let lines = self.lines.clone();
        let me = context.me.clone();
        let (id, inc) = (self.id.clone(), self.inc);
        Ok(Box::new(move |line| {
            let before = open.len();
            open.retain(|(kind, pattern)| !(pattern.is_match(line) && lines.set(*kind)));
            if open.len() < before {
                let what = Tick(What::Said);
                let id = id.clone();
                let _ = me.cast(HealthMsg::Tick { id, inc, what });
            }
            if open.is_empty() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }))
    }

    /// The next thing that the module said and that changes a count.
    pub(super) fn told(&self) -> Option<(ProbeKind, Look)> {
        let said = self.source.as_ref().map(|source| source.said());
        let said = said.unwrap_or_default();
        KINDS.into_iter().find_map(|kind| {
            let worker = self.workers.get(&kind)?;
            if self.doomed.is_some() || !self.state.due(kind) {
                return None;
            }
            let reached = self.state.probe(kind)?.reached;
            let word = match &worker.action {
                ProbeAction::Log { .. } if self.lines.matched(kind) => {
                    Some((Reached::Passed, "a line of its output matched".to_owned()))
                }
                ProbeAction::Notify => notified(kind, &said, reached),
                _ => None,
            };
            let (side, text) = word.filter(|(side, _)| reached != Some(*side))?;
            let outcome = match side {
                Reached::Passed => ProbeOutcome::Success,
                Reached::Failed => ProbeOutcome::Failure,
            };
            Some((kind, Look::told(outcome, text)))
        })
    }

    /// Arms the watchdog of a liveness probe that listens; nothing else that is told needs a timer.
    pub(super) fn arm_watchdog(
        &mut self,
        kind: ProbeKind,
        from: Option<Uptime>,
        context: &Context,
    ) {
        let Some(worker) = self.workers.get(&kind) else {
            return;
        };
        if kind == ProbeKind::Liveness && matches!(worker.action, ProbeAction::Notify) {
            let start = self.since + worker.spec.initial_delay;
            let from = from.unwrap_or_else(|| context.now().max(start));
            let at = from + worker.spec.timeout.max(Duration::from_millis(1));
            self.wake_at(kind, at, context);
        }
    }

    /// The watchdog's time is over: was there a ping?
    pub(super) fn watchdog(&mut self, kind: ProbeKind, due: Uptime, context: &Context) {
        let Some(worker) = self.workers.get(&kind) else {
            return;
        };
        let timeout = worker.spec.timeout;
        let said = self.source.as_ref().map(|source| source.said());
        let said = said.unwrap_or_default();
        let now = context.now();
        // When we were late, pings may still lie unread in the socket.
        if now.since(due) > slack(timeout) || said.patience.is_some_and(|until| until > now) {
            self.arm_watchdog(kind, Some(now), context);
            return;
        }
        let pinged = said.pinged.filter(|at| *at + timeout > now);
        let look = match pinged {
            Some(_) => Look::told(ProbeOutcome::Success, "it sent WATCHDOG=1".into()),
            None => {
                let ms = timeout.as_millis();
                let text = format!("it sent no WATCHDOG=1 for {ms} ms");
                Look::told(ProbeOutcome::Failure, text)
            }
        };
        self.count(kind, look, context);
        if self.state.due(kind) {
            self.arm_watchdog(kind, Some(pinged.unwrap_or(now)), context);
        }
        self.settle(context);
    }

    /// Gives a module that closed its ready descriptor the time to have ended instead.
    pub(super) fn arm_last_breath(&mut self, context: &Context) {
        let never = self
            .source
            .as_ref()
            .is_some_and(|source| source.said().never);
        let waits = self.told_kinds().any(|kind| self.state.due(kind));
        if !never || !waits || self.breath.is_some() || self.doomed.is_some() {
            return;
        }
        let fire = context.tick(&self.id, self.inc, What::Never);
        let at = context.now() + LAST_BREATH;
        self.breath = Some(Armed::at(&context.args.clock, at, fire));
    }

    /// The probes that wait for the ready source.
    fn told_kinds(&self) -> impl Iterator<Item = ProbeKind> {
        let workers = self.workers.iter();
        workers
            .filter(|(_, worker)| matches!(worker.action, ProbeAction::Notify))
            .map(|(kind, _)| *kind)
            .filter(|kind| *kind != ProbeKind::Liveness)
    }
}

/// What a module's own words come to for one probe.
fn notified(kind: ProbeKind, said: &Said, reached: Option<Reached>) -> Option<(Reached, String)> {
    match kind {
        ProbeKind::Liveness => {
            let first = said.pinged.is_some() && reached.is_none();
            first.then(|| (Reached::Passed, "it sent WATCHDOG=1".to_owned()))
        }
        ProbeKind::Startup | ProbeKind::Readiness if said.stopping => {
            let was = reached == Some(Reached::Passed);
            was.then(|| (Reached::Failed, "it said STOPPING=1".to_owned()))
        }
        ProbeKind::Startup | ProbeKind::Readiness => said
            .ready
            .then(|| (Reached::Passed, "it said that it is ready".to_owned())),
    }
}
