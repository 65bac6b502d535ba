//! The promises, checked after every step, from what was asked and published alone.

use super::world::{Process, World, went_down};
use lair_supervision::{
    Admission, ChildEvent, ChildSpec, Decision, DownReason, Effect, Ignored, NoticeKind, Outcome,
    Phase, RestartType, TimerKind, Uptime,
};

/// What an observer can know: requests, answers, notices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Books {
    /// The last request that was not denied wants it up.
    wanted: bool,
    /// A start was asked for and has not been carried out.
    owed: bool,
    draining: bool,
    /// “After the stop” was answered, and not taken back.
    promised: bool,
    /// The incarnation that notices are about.
    inc: u64,
    /// How far that incarnation has come, see `stage`.
    stage: u8,
    running: u8,
    exited: u8,
    start_failed: u8,
    stopping: u8,
    ends: u8,
    /// When unasked restarts were decided, since the last start by request or `settled`.
    unasked: Vec<Uptime>,
    broken: Option<String>,
}

impl Books {
    pub fn hear(&mut self, event: &ChildEvent, decision: &Decision) {
        let denied = matches!(decision.answer, Some(Admission::Denied(_)));
        match event {
            ChildEvent::StartRequested | ChildEvent::RestartRequested { .. } if !denied => {
                if self.draining {
                    self.broken = Some("a start was promised while draining".to_owned());
                }
                self.wanted = true;
                self.owed = true;
                self.promised |= matches!(decision.answer, Some(Admission::Deferred { .. }));
            }
            ChildEvent::StopRequested { .. } | ChildEvent::KillRequested => self.unwanted(),
            ChildEvent::ShutdownRequested { .. } => {
                self.unwanted();
                self.draining = true;
            }
            _ => {}
        }
    }

    /// The runtime marks every child before an ordered shutdown.
    pub fn drain(&mut self) {
        self.draining = true;
        self.promised = false;
    }

    fn unwanted(&mut self) {
        self.promised = false;
        self.wanted = false;
        self.owed = false;
    }

    pub fn note(&mut self, inc: u64, effect: &Effect, now: Uptime, spec: &ChildSpec) {
        let Effect::Publish(notice) = effect else {
            return;
        };
        if *notice == NoticeKind::Starting {
            self.begin(inc, now, spec);
        }
        if inc != self.inc {
            self.broken = Some(format!("{notice:?} is about #{inc}, not #{}", self.inc));
        }
        let Some(stage) = stage(notice) else {
            return;
        };
        if stage < self.stage {
            self.broken = Some(format!("{notice:?} comes too late"));
        }
        self.stage = stage;
        match notice {
            NoticeKind::Running => self.running += 1,
            NoticeKind::Exited { .. } => self.exited += 1,
            NoticeKind::StartFailed { .. } => self.start_failed += 1,
            NoticeKind::Stopping { .. } => self.stopping += 1,
            NoticeKind::Settled => self.unasked.clear(),
            NoticeKind::Backoff { .. } => {
                self.ends += 1;
                self.count_unasked(now, spec);
            }
            NoticeKind::Down { .. } => self.ends += 1,
            _ => {}
        }
    }

    fn begin(&mut self, inc: u64, now: Uptime, spec: &ChildSpec) {
        if inc != self.inc + 1 {
            self.broken = Some(format!("#{inc} follows #{}", self.inc));
        }
        if !self.wanted || self.draining {
            self.broken = Some("started though nobody wants it".to_owned());
        }
        if self.owed {
            self.owed = false;
            self.unasked.clear();
        } else if self.ends == 0 {
            // Straight from one life to the next; otherwise `backoff` counted it.
            self.count_unasked(now, spec);
        }
        let kept = std::mem::take(self);
        *self = Books {
            wanted: kept.wanted,
            inc,
            unasked: kept.unasked.clone(),
            broken: kept.broken.clone().or_else(|| ended_well(&kept)),
            ..Books::default()
        };
    }

    fn count_unasked(&mut self, now: Uptime, spec: &ChildSpec) {
        self.unasked
            .retain(|at| now.since(*at) <= spec.intensity.within);
        self.unasked.push(now);
        let allowed = match spec.restart {
            RestartType::Temporary => 0,
            RestartType::Transient | RestartType::Permanent => spec.intensity.max as usize,
        };
        if self.unasked.len() > allowed {
            self.broken = Some(format!("{} unasked restarts", self.unasked.len()));
        }
    }
}

/// I3: the order of notices within one incarnation.
fn stage(notice: &NoticeKind) -> Option<u8> {
    Some(match notice {
        NoticeKind::Starting => 0,
        NoticeKind::Running => 1,
        NoticeKind::Ready
        | NoticeKind::NotReady
        | NoticeKind::Settled
        | NoticeKind::Frozen
        | NoticeKind::Thawed => 2,
        NoticeKind::Stopping { .. } => 3,
        NoticeKind::Killing => 4,
        NoticeKind::Stuck => 5,
        NoticeKind::Exited { .. } | NoticeKind::StartFailed { .. } => 6,
        NoticeKind::Down { .. } | NoticeKind::Backoff { .. } => 7,
        _ => return None,
    })
}

/// I2: one `exited` per `running`, or a failed start, and one end.
fn ended_well(books: &Books) -> Option<String> {
    if books.inc == 0 {
        return None;
    }
    let one_end = books.exited + books.start_failed == 1;
    let fits = books.exited >= books.running && books.running <= 1;
    (!one_end || !fits || books.stopping > 1).then(|| format!("it ended badly: {books:?}"))
}

pub fn check(
    spec: &ChildSpec,
    before: &World,
    after: &World,
    decision: &Decision,
) -> Result<(), String> {
    let child = &after.child;
    let books = &after.books;
    if let Some(broken) = &books.broken {
        return Err(broken.clone());
    }
    ensure(
        decision.outcome != Outcome::Ignored(Ignored::Unexpected),
        "nothing a working world sends is unexpected",
    )?;
    ensure(
        child.history.at.len() <= spec.intensity.max as usize,
        "the history is bounded",
    )?;
    let up = matches!(child.phase, Phase::Up { .. });
    ensure(
        after.watched == (up && !child.is_frozen()),
        "probes run while it is up and not held still, and only then",
    )?;
    ensure(
        after.rests == child.is_frozen(),
        "probes rest while it is held still",
    )?;
    let at_rest = matches!(child.phase, Phase::Down(_) | Phase::Waiting { .. });
    if at_rest {
        ensure(!books.promised, "a start that was promised comes")?;
        ensure(after.process == Process::None, "nothing outlives its end")?;
        ensure(after.ledger.is_none(), "the ledger forgets what ended")?;
        if books.inc > 0 && books.ends != 1 {
            // A wait that was called off says `down` after `backoff`.
            ensure(books.ends == 2, "its end is published")?;
        }
        ended_well(books).map_or(Ok(()), Err)?;
    } else {
        ensure(
            after.process != Process::None,
            "what is gone is not waited for",
        )?;
    }
    timers(after)?;
    told_truly(before, after, decision)
}

/// A child that waits for something has a timer that ends the waiting; one at rest has none.
fn timers(world: &World) -> Result<(), String> {
    let armed = |timer| world.timers.contains_key(&timer);
    let only = |wanted: &[TimerKind]| {
        let known = world.timers.iter();
        let good = |(kind, (inc, _)): (&TimerKind, &(u64, Uptime))| {
            wanted.contains(kind) && *inc == world.child.inc
        };
        ensure(known.into_iter().all(good), "no timer is left over")
    };
    match &world.child.phase {
        Phase::Down(_) => only(&[]),
        Phase::Waiting { .. } => {
            ensure(armed(TimerKind::Backoff), "a wait ends")?;
            only(&[TimerKind::Backoff])
        }
        Phase::Spawning { .. } => {
            ensure(armed(TimerKind::Start), "a start ends")?;
            only(&[TimerKind::Start])
        }
        Phase::Up {
            frozen: Some(_), ..
        } => only(&[TimerKind::Resight]),
        Phase::Up { .. } => only(&[TimerKind::Readiness, TimerKind::Settle, TimerKind::Resight]),
        Phase::Stopping { killed, .. } => {
            ensure(armed(TimerKind::Grace) != *killed, "grace ends")?;
            ensure(armed(TimerKind::Kill) == *killed, "proof is asked for")?;
            only(&[TimerKind::Grace, TimerKind::Kill, TimerKind::Resight])
        }
    }
}

/// I6: a requested end is never called a failure.
fn told_truly(before: &World, after: &World, decision: &Decision) -> Result<(), String> {
    if !went_down(before, decision) || after.books.wanted {
        return Ok(());
    }
    let Phase::Down(reason) = &after.child.phase else {
        return Ok(());
    };
    let asked = matches!(reason, DownReason::Requested | DownReason::ShutDown);
    ensure(
        asked && (after.books.draining || *reason == DownReason::Requested),
        "a requested end is called requested",
    )
}

fn ensure(holds: bool, promise: &str) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(format!("broken: {promise}"))
    }
}
