//! What must hold at the end of every story, whatever was done to it: I1 to I4 and I6 of the faults' list.

use super::word;
use lair::RuntimeHandle;
use lair::supervision::{DownReason, Notice, NoticeKind, Origin, RestartType, Seq, StopCause};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Checks every kept notice of a runtime.
pub fn check(lair: &RuntimeHandle) {
    let batch = lair.events(Seq(0), usize::MAX);
    let from = batch.gap.map_or(0, |(_, last)| last.0);
    for (at, notice) in batch.notices.iter().enumerate() {
        assert_eq!(
            notice.seq.0,
            from + at as u64 + 1,
            "I3: a hole in the numbers"
        );
    }
    let mut lives: BTreeMap<(String, u64), Vec<Arc<Notice>>> = BTreeMap::new();
    for notice in &batch.notices {
        let key = (notice.id.to_string(), notice.inc);
        lives.entry(key).or_default().push(notice.clone());
    }
    for ((name, inc), notices) in &lives {
        // The first notices of a life that began before the oldest kept one are gone.
        if batch.gap.is_none() {
            check_life(name, *inc, notices);
        }
    }
    if batch.gap.is_none() {
        check_restarts(lair, &batch.notices);
    }
}

fn check_life(name: &str, inc: u64, notices: &[Arc<Notice>]) {
    let life: Vec<String> = notices.iter().map(|n| word(&n.kind)).collect();
    let count = |what: &str| life.iter().filter(|w| *w == what).count();
    let ran = count("running");
    assert!(ran <= 1, "I2: {name}#{inc}: {life:?}");
    assert_eq!(
        count("exited"),
        ran,
        "I2: one exit per life: {name}#{inc}: {life:?}"
    );
    assert_eq!(
        count("starting"),
        count("start_failed") + ran,
        "I2: {name}#{inc}: {life:?}"
    );
    let ranks: Vec<u8> = life.iter().filter_map(|w| rank(w)).collect();
    assert!(ranks.is_sorted(), "I3: {name}#{inc} out of order: {life:?}");
    let stop = notices.iter().find_map(|n| match &n.kind {
        NoticeKind::Stopping { cause } => Some(*cause),
        _ => None,
    });
    let down = notices.iter().find_map(|n| match &n.kind {
        NoticeKind::Down { reason } => Some(reason.clone()),
        _ => None,
    });
    if let (Some(StopCause::Requested | StopCause::Restart), Some(reason)) = (stop, down) {
        let meant = matches!(reason, DownReason::Requested | DownReason::ShutDown);
        assert!(
            meant,
            "I6: {name}#{inc}: a requested stop ended as {reason:?}"
        );
    }
}

fn rank(word: &str) -> Option<u8> {
    Some(match word {
        "starting" => 1,
        "running" => 2,
        "ready" | "not_ready" | "settled" => 3,
        "stopping" => 4,
        "killing" => 5,
        "stuck" => 6,
        "exited" | "start_failed" => 7,
        "down" | "backoff" | "held" => 8,
        _ => return None,
    })
}

/// I4: what nobody asked for was allowed by the manifest.
fn check_restarts(lair: &RuntimeHandle, notices: &[Arc<Notice>]) {
    for notice in notices {
        if !matches!(notice.kind, NoticeKind::Starting) {
            continue;
        }
        let name = notice.id.as_str();
        let Ok(view) = lair.view(name) else { continue };
        let asked = matches!(notice.origin, Origin::Requested { .. });
        let never = view.plan.spec.restart == RestartType::Temporary;
        assert!(
            asked || !never,
            "I4: {name} was started by {:?}",
            notice.origin
        );
    }
}
