//! Decisions in the words of the table.

use super::fixture::NOW;
use lair_supervision::{
    Admission, Child, Decision, Desired, Effect, Ignored, NoticeKind, Outcome, Phase, Readiness,
    Sight,
};

pub fn next(before: &Child, decision: &Decision) -> String {
    match decision.outcome {
        Outcome::Ignored(Ignored::Stale) => return "stale".to_owned(),
        Outcome::Ignored(Ignored::Unexpected) => return "unexpected".to_owned(),
        Outcome::Unchanged => return "unchanged".to_owned(),
        Outcome::Changed => {}
    }
    let child = &decision.child;
    let mut said = phase(&child.phase);
    if child.desired != before.desired {
        said += match child.desired {
            Desired::Up => ", wanted",
            Desired::Down => ", unwanted",
        };
    }
    if child.draining && !before.draining {
        said += ", draining";
    }
    if child.history != before.history {
        said += match (child.history.at.is_empty(), child.history.total) {
            (true, total) if total > before.history.total => ", counted by its group",
            (true, _) => ", history forgotten",
            (false, _) => ", counted",
        };
    }
    said
}

fn phase(phase: &Phase) -> String {
    match phase {
        Phase::Down(reason) => format!("Down({})", word(&reason)),
        Phase::Spawning { abort: None, .. } => "Spawning".to_owned(),
        Phase::Spawning {
            abort: Some(grace), ..
        } => format!("Spawning, aborted (grace {grace:?})"),
        Phase::Up {
            readiness,
            sight,
            frozen,
            ..
        } => {
            let readiness = match readiness {
                Readiness::Awaiting { .. } => "Awaiting",
                Readiness::Ready { .. } => "Ready",
                Readiness::NotReady { .. } => "NotReady",
            };
            let still = if frozen.is_some() { ", frozen" } else { "" };
            format!("Up({readiness}){}{still}", seen(*sight))
        }
        Phase::Stopping {
            cause,
            killed,
            grace_over,
            stuck,
            identity,
            sight,
            ..
        } => {
            let note = |on: bool, text: &'static str| if on { text } else { "" };
            format!(
                "Stopping({}){}{}{}{}{}",
                word(&cause),
                note(*killed, ", killed"),
                note(*grace_over, ", grace over"),
                note(*stuck, ", stuck"),
                note(identity.is_none(), ", not yet made"),
                seen(*sight)
            )
        }
        Phase::Waiting { until: None, .. } => "Waiting(held)".to_owned(),
        Phase::Waiting { attempt, .. } => format!("Waiting(attempt {attempt})"),
    }
}

fn seen(sight: Sight) -> &'static str {
    match sight {
        Sight::Live => "",
        Sight::Lost { .. } => ", out of sight",
    }
}

/// The name of an enum's variant, without what it holds.
fn word(value: &dyn std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split([' ', '(', '{'])
        .next()
        .unwrap_or_default()
        .to_owned()
}

pub fn effects(decision: &Decision) -> String {
    let all: Vec<_> = decision.effects.iter().map(effect).collect();
    all.join(" · ")
}

fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Spawn { inc } => format!("Spawn #{inc}"),
        Effect::Signal { signal, scope } => format!("Signal({signal}, {scope:?})"),
        Effect::Arm { timer, at } => format!("arm {timer:?} +{:?}", at.since(NOW)),
        Effect::Cancel { timer } => format!("cancel {timer:?}"),
        Effect::Publish(kind) => format!("“{}”", notice(kind)),
        Effect::AbortSpawn
        | Effect::ConfirmLedger
        | Effect::EraseLedger
        | Effect::Kill
        | Effect::Watch
        | Effect::Rest
        | Effect::Unwatch
        | Effect::LookAgain
        | Effect::AttachLogs
        | Effect::Entomb => word(effect),
    }
}

fn notice(kind: &NoticeKind) -> String {
    let mut said = String::new();
    for c in word(kind).chars() {
        if c.is_uppercase() && !said.is_empty() {
            said.push(' ');
        }
        said.extend(c.to_lowercase());
    }
    said
}

pub fn answer(decision: &Decision) -> String {
    match decision.answer {
        None => String::new(),
        Some(Admission::Accepted { inc }) => format!("accepted #{inc}"),
        Some(Admission::AlreadySatisfied { inc }) => format!("already so #{inc}"),
        Some(Admission::Deferred { inc }) => format!("after the stop #{inc}"),
        Some(Admission::Denied(reason)) => format!("denied: {}", word(&reason)),
    }
}

const HEAD: &str = "\
# The state machine of a child

Made from `supervision/tests/table/rows.txt`, which the test of the same name holds against `decide`. Do not edit:
`LAIR_BLESS=1 cargo test -p lair-supervision --test table` writes it anew.

Reading it: every child here is of incarnation 7 and temporary, with the defaults of `ChildSpec` (grace 10 s, start
deadline 60 s, proof of death 5 s, five restarts in ten minutes), unless its words say otherwise. “Quoted” effects are
notices; times are from now. *stale*: about something that is over, counted and dropped. *unexpected*: nothing that
works as promised sends it here. Numbers are those of the design, letters mark guards; *x* is a report that changes
nothing. Rows with G are those of a member of a group: `held`, `released` and `given up` are its group's word. Rows
with F are about holding it still; *Rest* keeps what its probes learnt, *Unwatch* does not.

Order of notices within one incarnation: starting < running < ready, not ready, settled, frozen, thawed < stopping < killing < stuck <
exited < held < down or backoff. `exited` comes exactly once for every `running`; a start that failed says `start failed`
instead. A child that lost the race with its own start deadline is never called running, but its end is told. When the next incarnation follows at once, its `starting` takes the place of `down` or `backoff`. In such a
decision everything before `starting` is about the incarnation before (`Decision::addressed`).

";

pub fn document<'a>(
    rows: impl Iterator<Item = (&'a str, &'a str, &'a str, &'a [String; 3])>,
) -> String {
    let mut text = HEAD.to_owned();
    let mut phase = "";
    for (number, from, event, [next, effects, answer]) in rows {
        let (of, guard) = from.split_once(", ").unwrap_or((from, ""));
        if of != phase {
            phase = of;
            text += &format!(
                "{}## From {of}\n\n| # | When | Event | Next | Effects, in order | Answer |\n|---|---|---|---|---|---|\n",
                if text.ends_with("|\n") { "\n" } else { "" }
            );
        }
        text += &format!("| {number} | {guard} | {event} | {next} | {effects} | {answer} |\n");
    }
    text
}
