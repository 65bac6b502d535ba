//! The verdict in words.

use super::watched::Heard;
use crate::view::{HealthView, HealthWord};
use lair_supervision::{HealthState, HealthVerdict, ProbeKind, ProbeOutcome};

/// A verdict before it is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Draft {
    pub word: HealthWord,
    pub probe: Option<ProbeKind>,
    pub reason: Option<String>,
    /// The reason without what differs from look to look: only a change of this is news.
    pub topic: String,
}

impl Draft {
    /// While it comes up, its own words are worth showing.
    pub fn add_status(&mut self, status: Option<&str>) {
        if let (Some(status), HealthWord::Unknown, Some(reason)) =
            (status, self.word, &mut self.reason)
        {
            let text = format!("; it says: {status}");
            reason.push_str(&text);
            self.topic.push_str(&text);
        }
    }
}

const NO_PROBE: &str = "no probe declared";
pub(super) const UNWATCHED: &str = "no longer watched";

/// What the counts and the last findings come to.
pub(super) fn draft(state: &HealthState, heard: &Heard, doomed: Option<&str>) -> Draft {
    if let Some(why) = doomed {
        return Draft {
            word: HealthWord::Unhealthy,
            probe: asked_now(state),
            reason: Some(why.to_owned()),
            topic: why.to_owned(),
        };
    }
    let health = state.health();
    let mut draft = match health.state {
        HealthVerdict::Healthy => Draft {
            word: HealthWord::Healthy,
            probe: health.probe,
            ..Draft::default()
        },
        HealthVerdict::Unhealthy => {
            let complaint = health.reason.clone().unwrap_or_default();
            with_finding(HealthWord::Unhealthy, health.probe, complaint, heard)
        }
        HealthVerdict::Unknown => coming_up(state, heard),
    };
    add_unable(&mut draft, heard);
    draft
}

/// The view to publish, if this is news against the last one.
pub(super) fn news(
    draft: Draft,
    last: &HealthView,
    topic: &mut String,
    now_ms: u64,
) -> Option<HealthView> {
    let moved = draft.word != last.state;
    if !moved && draft.probe == last.probe && draft.topic == *topic {
        return None;
    }
    *topic = draft.topic;
    Some(HealthView {
        state: draft.word,
        reason: draft.reason,
        probe: draft.probe,
        since_ms: if moved { now_ms } else { last.since_ms },
        checked_ms: last.checked_ms.clone(),
    })
}

fn coming_up(state: &HealthState, heard: &Heard) -> Draft {
    let Some(kind) = asked_now(state) else {
        return Draft {
            reason: Some(NO_PROBE.into()),
            topic: NO_PROBE.into(),
            ..Draft::default()
        };
    };
    let answered = heard
        .get(&kind)
        .is_some_and(|look| matches!(look.outcome, ProbeOutcome::Failure | ProbeOutcome::TimedOut));
    if answered {
        with_finding(
            HealthWord::Unknown,
            Some(kind),
            "not ready yet".into(),
            heard,
        )
    } else {
        let text = format!("its {} probe has not said yes yet", name(kind));
        Draft {
            probe: Some(kind),
            reason: Some(text.clone()),
            topic: text,
            ..Draft::default()
        }
    }
}

/// The probe on whose answer everything waits.
fn asked_now(state: &HealthState) -> Option<ProbeKind> {
    [
        ProbeKind::Startup,
        ProbeKind::Readiness,
        ProbeKind::Liveness,
    ]
    .into_iter()
    .find(|kind| {
        let passed = state.probe(*kind).map(|probe| probe.reached);
        passed.is_some_and(|reached| reached != Some(lair_supervision::probe::Reached::Passed))
    })
}

fn with_finding(word: HealthWord, probe: Option<ProbeKind>, text: String, heard: &Heard) -> Draft {
    let Some(look) = probe.and_then(|kind| heard.get(&kind)) else {
        return Draft {
            word,
            probe,
            reason: Some(text.clone()),
            topic: text,
        };
    };
    Draft {
        word,
        probe,
        reason: Some(format!("{text}: {}", look.evidence())),
        topic: format!("{text}: {}", look.said),
    }
}

/// A probe that can't be put changes no verdict, but is seen.
fn add_unable(draft: &mut Draft, heard: &Heard) {
    for (kind, look) in heard {
        if look.outcome != ProbeOutcome::CouldNotRun {
            continue;
        }
        let text = format!("its {} probe says nothing: {}", name(*kind), look.said);
        draft.topic.push_str(&text);
        draft.reason = Some(match draft.reason.take() {
            Some(reason) if draft.word == HealthWord::Unhealthy => format!("{reason}; {text}"),
            Some(_) | None => text,
        });
    }
}

pub(super) fn name(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Startup => "startup",
        ProbeKind::Readiness => "readiness",
        ProbeKind::Liveness => "liveness",
    }
}
