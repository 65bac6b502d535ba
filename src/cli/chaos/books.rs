//! What was seen of a runtime under chaos, and which promises it kept: those that can be seen from outside.
//!
//! Promises: a promise that could not be looked at is said to be, not counted as kept.

use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// One promise.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// `I1` to `I12` (docs/faults.md).
    pub promise: &'static str,
    /// In a few words.
    pub about: &'static str,
    /// What was looked at.
    pub seen: String,
    /// How it was broken; empty: it was kept.
    pub broken: Vec<String>,
}

/// The events of one run, in order.
#[derive(Default)]
struct Run<'e> {
    events: Vec<&'e Value>,
}

impl Run<'_> {
    fn count(&self, kind: &str) -> usize {
        self.events.iter().filter(|e| e["type"] == kind).count()
    }

    fn first(&self, kind: &str) -> Option<u64> {
        let event = self.events.iter().find(|e| e["type"] == kind)?;
        event["seq"].as_u64()
    }
}

type Runs<'e> = BTreeMap<(String, u64), Run<'e>>;

/// Findings over all events of the time that was watched. `policies`: each module's restart policy; `from`: modules and
/// runs that were up before.
#[must_use]
pub fn of_events(
    events: &[Value],
    policies: &BTreeMap<String, String>,
    before: &BTreeMap<String, u64>,
) -> Vec<Finding> {
    let mut runs: Runs = BTreeMap::new();
    for event in events
        .iter()
        .filter(|e| e["type"].as_str().is_some_and(|t| t.starts_with("module.")))
    {
        let name = event["name"].as_str().unwrap_or("").to_owned();
        let run = event["run"].as_u64().unwrap_or(0);
        runs.entry((name, run)).or_default().events.push(event);
    }
    vec![
        numbers(events),
        one_exit(&runs, before),
        order(&runs),
        unasked(events, policies),
        truth(&runs),
        marked(events, &runs),
    ]
}

fn numbers(events: &[Value]) -> Finding {
    let seqs: Vec<u64> = events.iter().filter_map(|e| e["seq"].as_u64()).collect();
    let holes = seqs.windows(2).filter(|w| w[1] != w[0] + 1);
    Finding {
        promise: "I3",
        about: "events are numbered without a hole",
        seen: format!("{} events", seqs.len()),
        broken: holes
            .map(|w| format!("{} is followed by {}", w[0], w[1]))
            .collect(),
    }
}

fn one_exit(runs: &Runs, before: &BTreeMap<String, u64>) -> Finding {
    let mut broken = Vec::new();
    let mut lives = 0;
    for ((name, number), run) in runs {
        let (up, ended) = (run.count("module.running"), run.count("module.exited"));
        lives += up;
        // A run that came up before we looked has only its end here.
        let up = up + usize::from(before.get(name) == Some(number));
        if ended != up {
            broken.push(format!(
                "{name} run {number}: up {up} times, ended {ended} times"
            ));
        }
    }
    Finding {
        promise: "I2",
        about: "one exit for each life",
        seen: format!("{lives} lives"),
        broken,
    }
}

fn order(runs: &Runs) -> Finding {
    const ORDER: [&str; 5] = [
        "module.starting",
        "module.running",
        "module.ready",
        "module.stopping",
        "module.exited",
    ];
    let mut broken = Vec::new();
    for ((name, number), run) in runs {
        let mut last: Option<(&str, u64)> = None;
        for kind in ORDER {
            let Some(seq) = run.first(kind) else { continue };
            if let Some((before, at)) = last.filter(|(_, at)| *at > seq) {
                broken.push(format!(
                    "{name} run {number}: {kind} ({seq}) before {before} ({at})"
                ));
            }
            last = Some((kind, seq));
        }
        let ended = run.first("module.exited");
        let after = run.events.iter().find(|e| {
            let kind = e["type"].as_str().unwrap_or("");
            matches!(kind, "module.running" | "module.ready" | "module.stopping")
                && e["seq"].as_u64() > ended
                && ended.is_some()
        });
        if let Some(event) = after {
            broken.push(format!(
                "{name} run {number}: {} after its exit",
                event["type"]
            ));
        }
    }
    Finding {
        promise: "I3",
        about: "starting, running, ready, stopping, exited, in this order",
        seen: format!("{} runs", runs.len()),
        broken,
    }
}

fn unasked(events: &[Value], policies: &BTreeMap<String, String>) -> Finding {
    let starts = events.iter().filter(|e| e["type"] == "module.starting");
    let starts: Vec<&Value> = starts
        .filter(|e| {
            policies
                .get(e["name"].as_str().unwrap_or(""))
                .is_some_and(|p| p == "never")
        })
        .collect();
    let broken = starts.iter().filter(|e| e["origin"] != "requested");
    Finding {
        promise: "I4",
        about: "no start that nobody asked for, where the policy is never",
        seen: format!("{} starts", starts.len()),
        broken: broken
            .map(|e| format!("{} run {}: origin {}", e["name"], e["run"], e["origin"]))
            .collect(),
    }
}

fn truth(runs: &Runs) -> Finding {
    let mut broken = Vec::new();
    let mut stops = 0;
    for ((name, number), run) in runs {
        let asked = run.events.iter().any(|e| {
            e["type"] == "module.stopping"
                && matches!(e["cause"].as_str(), Some("requested" | "shutdown"))
        });
        stops += usize::from(asked);
        let crashed = run
            .events
            .iter()
            .any(|e| e["type"] == "module.failed" && e["reason"] == "crashed");
        if asked && crashed {
            broken.push(format!(
                "{name} run {number} was asked to stop and is called crashed"
            ));
        }
        for exit in run.events.iter().filter(|e| e["type"] == "module.exited") {
            let ways = ["code", "signal", "unknown"]
                .iter()
                .filter(|k| !exit["exit"][**k].is_null());
            if ways.count() != 1 {
                broken.push(format!(
                    "{name} run {number}: its exit says {}",
                    exit["exit"]
                ));
            }
        }
    }
    Finding {
        promise: "I6",
        about: "a requested stop is no crash, an exit is a code, a signal or unknown",
        seen: format!("{stops} requested stops"),
        broken,
    }
}

fn marked(events: &[Value], runs: &Runs) -> Finding {
    let mut broken = Vec::new();
    let faults: Vec<&Value> = events
        .iter()
        .filter(|e| e["type"] == "fault.injected")
        .collect();
    for fault in &faults {
        if fault["origin"] != "injected" || fault["label"].as_str().is_none_or(str::is_empty) {
            broken.push(format!("fault {} has no label", fault["seq"]));
        }
        let what: Value = fault["fault"]
            .as_str()
            .and_then(|f| serde_json::from_str(f).ok())
            .unwrap_or_default();
        let crash = what.get("crash_child").is_some_and(|c| c["signal"] == 9);
        let key = (
            fault["name"].as_str().unwrap_or("").to_owned(),
            fault["run"].as_u64().unwrap_or(0),
        );
        let Some(run) = runs.get(&key).filter(|_| crash) else {
            continue;
        };
        let (at, ended) = (fault["seq"].as_u64(), run.first("module.exited"));
        let stopping = run.first("module.stopping");
        let exit = run.events.iter().find(|e| e["type"] == "module.exited");
        let ours = stopping.is_none() && ended > at;
        if let Some(exit) = exit.filter(|e| ours && e["origin"] != "injected") {
            broken.push(format!(
                "{} run {}: crashed by us, origin {}",
                key.0, key.1, exit["origin"]
            ));
        }
    }
    Finding {
        promise: "I11",
        about: "what was injected is marked",
        seen: format!("{} faults", faults.len()),
        broken,
    }
}

/// What the numbered lines of one run say: none twice, none out of order, none missing that was not told as dropped.
#[must_use]
pub fn of_lines(name: &str, run: u64, lines: &[String], dropped: u64) -> (u64, Vec<String>) {
    let number = |line: &String| {
        let digits = line
            .trim_end()
            .rsplit(|c: char| !c.is_ascii_digit())
            .next()?;
        digits.parse::<u64>().ok()
    };
    let numbers: Vec<u64> = lines.iter().filter_map(number).collect();
    // Only output that is numbered throughout: anything else proves nothing.
    let rising = numbers.windows(2).filter(|w| w[1] == w[0] + 1).count();
    if numbers.len() < 3 || numbers.len() != lines.len() || rising * 2 < numbers.len() {
        return (0, Vec::new());
    }
    let (mut broken, mut missing) = (Vec::new(), 0);
    for w in numbers.windows(2) {
        match w[1].checked_sub(w[0]) {
            Some(0) => broken.push(format!("{name} run {run}: line {} twice", w[0])),
            None => broken.push(format!("{name} run {run}: line {} after {}", w[1], w[0])),
            Some(step) => missing += step - 1,
        }
    }
    if missing > dropped {
        broken.push(format!(
            "{name} run {run}: {missing} lines are missing, {dropped} were told as dropped"
        ));
    }
    (numbers.len() as u64, broken)
}

#[cfg(test)]
mod test {
    use super::*;
    use serde_json::json;

    fn event(seq: u64, kind: &str, more: Value) -> Value {
        let mut event =
            json!({ "seq": seq, "type": kind, "name": "a", "run": 1, "origin": "requested" });
        if let (Some(map), Value::Object(more)) = (event.as_object_mut(), more) {
            map.extend(more);
        }
        event
    }

    fn broken(events: &[Value]) -> Vec<&'static str> {
        let policies = [("a".to_owned(), "never".to_owned())].into();
        let all = of_events(events, &policies, &BTreeMap::new());
        all.into_iter()
            .filter(|f| !f.broken.is_empty())
            .map(|f| f.promise)
            .collect()
    }

    fn life() -> Vec<Value> {
        vec![
            event(1, "module.starting", json!({})),
            event(2, "module.running", json!({})),
            event(
                3,
                "module.exited",
                json!({ "origin": "observed", "exit": { "code": 1 } }),
            ),
            event(4, "module.failed", json!({ "reason": "crashed" })),
        ]
    }

    #[test]
    fn a_good_life_breaks_no_promise() {
        assert_eq!(broken(&life()), Vec::<&str>::new());
    }

    #[test]
    fn each_broken_promise_is_found() {
        let without = |at: usize| {
            let mut all = life();
            all.remove(at);
            all
        };
        assert_eq!(broken(&without(2)), ["I3", "I2"]);
        let mut twice = life();
        twice.insert(
            3,
            event(3, "module.exited", json!({ "exit": { "code": 1 } })),
        );
        assert!(broken(&twice).contains(&"I2"));
        let mut unasked = life();
        unasked[0]["origin"] = "observed".into();
        assert_eq!(broken(&unasked), ["I4"]);
        let mut liar = life();
        liar.insert(
            2,
            event(3, "module.stopping", json!({ "cause": "requested" })),
        );
        assert!(broken(&liar).contains(&"I6"));
        let mut hidden = life();
        let fault = json!({ "origin": "injected", "label": "x", "fault": "{\"crash_child\":{\"id\":\"a\",\"signal\":9}}" });
        hidden.insert(2, event(3, "fault.injected", fault));
        hidden[3]["seq"] = 4.into();
        hidden[4]["seq"] = 5.into();
        assert_eq!(broken(&hidden), ["I11"]);
    }

    #[test]
    fn a_missing_line_must_have_been_told() {
        let lines = |numbers: &[u64]| {
            numbers
                .iter()
                .map(|n| format!("line {n}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            of_lines("a", 1, &lines(&[1, 2, 3, 5, 6]), 1).1,
            Vec::<String>::new()
        );
        assert_eq!(of_lines("a", 1, &lines(&[1, 2, 3, 5, 6]), 0).1.len(), 1);
        assert_eq!(of_lines("a", 1, &lines(&[1, 2, 2, 3, 4]), 9).1.len(), 1);
        assert_eq!(
            of_lines("a", 1, &["hello".into(), "7".into(), "3".into()], 0).0,
            0
        );
    }
}
