//! `lair park` and `lair wake`: what they came to, for people.

use super::args::{Format, Global, Names};
use super::error::CliError;
use super::exit::Code;
use super::time::{bytes, span};
use super::{find, lifecycle, query};
use crate::handle::{Bytes, ParkReport};
use serde_json::json;

/// `lair park`, `lair wake`
///
/// # Errors
/// The daemon does not answer.
pub fn park(global: &Global, names: &Names, method: &str) -> Result<Code, CliError> {
    let mut client = find::daemon(global)?;
    let names = query::names(&mut client, names)?;
    let results = lifecycle::ask_each(&mut client, method, &names, &json!({}))?;
    let out = query::out(global);
    if out.structured() || out.format == Format::Name {
        lifecycle::report(&out, &results)?;
    } else {
        let mut text = String::new();
        for value in results.iter().filter_map(|(_, r)| r.as_ref().ok()) {
            let report: ParkReport =
                serde_json::from_value(value.clone()).map_err(|e| query::broken(&e))?;
            text += &line(&report, method == "module.park");
        }
        out.text(&text)?;
    }
    lifecycle::worst(global, &mut client, &results, None)
}

/// `llama: parked in 1.2s; memory 2.1GiB -> 180.0MiB (1.9GiB freed); GPU memory unknown`
fn line(report: &ParkReport, parked: bool) -> String {
    let took = span(report.took_ms);
    let done = match (parked, report.ready) {
        (true, _) => format!("parked in {took}"),
        (false, Some(true)) => format!("woken, ready after {took}"),
        (false, Some(false)) => format!("woken, not ready after {took}"),
        (false, None) => format!("woken, answered after {took}"),
    };
    let (memory, gpu) = (change(report.memory), change(report.gpu_memory));
    format!(
        "{}: {done}; memory {memory}; GPU memory {gpu}\n",
        report.name
    )
}

fn change(held: Bytes) -> String {
    let (Some(before), Some(after)) = (held.before, held.after) else {
        return "unknown".to_owned();
    };
    let by = match held.freed {
        Some(0) | None => String::new(),
        Some(less) if less > 0 => format!(" ({} freed)", bytes(less.unsigned_abs())),
        Some(more) => format!(" ({} more)", bytes(more.unsigned_abs())),
    };
    format!("{} -> {}{by}", bytes(before), bytes(after))
}

#[cfg(test)]
mod test {
    use super::{Bytes, ParkReport, line};

    #[test]
    fn a_line_tells_what_was_freed_what_grew_and_what_nobody_knows() {
        let some = |before, after| Bytes {
            before: Some(before),
            after: Some(after),
            freed: Some(before as i64 - after as i64),
        };
        let none = Bytes {
            before: None,
            after: Some(1),
            freed: None,
        };
        let mut report = ParkReport {
            name: "m".into(),
            run: 1,
            seq: 1,
            memory: some(1 << 30, 1 << 20),
            gpu_memory: none,
            took_ms: 1200,
            ready: None,
        };
        assert_eq!(
            line(&report, true),
            "m: parked in 1.2s; memory 1.0GiB -> 1.0MiB (1023.0MiB freed); GPU memory unknown\n"
        );
        (report.memory, report.ready) = (some(1 << 20, 3 << 20), Some(true));
        assert_eq!(
            line(&report, false),
            "m: woken, ready after 1.2s; memory 1.0MiB -> 3.0MiB (2.0MiB more); GPU memory unknown\n"
        );
    }
}
