//! Every cell of the state machine, as data: `rows.txt` is what is expected, `docs/state-machine.md` is made from it.
//!
//! `LAIR_BLESS=1 cargo test -p lair-supervision --test table` rewrites the document, never the rows.

mod fixture;
mod render;

use fixture::{EVENTS, PHASES};
use lair_supervision::decide;
use std::fmt::Write as _;
use std::path::PathBuf;

/// number | from | event | next | effects | answer
const ROWS: &str = include_str!("rows.txt");

struct Row<'a> {
    number: &'a str,
    from: &'a str,
    event: &'a str,
    /// next, effects, answer
    then: [String; 3],
}

fn rows() -> Vec<Row<'static>> {
    let lines = ROWS
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines.map(row).collect()
}

fn row(line: &'static str) -> Row<'static> {
    let mut cells = line.split('|').map(str::trim);
    let mut next = || cells.next().unwrap_or_default();
    Row {
        number: next(),
        from: next(),
        event: next(),
        then: [next(), next(), next()].map(str::to_owned),
    }
}

fn happens(from: &str, event: &str) -> [String; 3] {
    let (spec, child) = fixture::child(from);
    let (inc, about) = fixture::event(event, child.inc);
    let decision = decide(&spec, &child, inc, about, fixture::NOW);
    [
        render::next(&child, &decision),
        render::effects(&decision),
        render::answer(&decision),
    ]
}

#[test]
fn every_row_of_the_table_holds() {
    let mut wrong = String::new();
    for row in rows() {
        let then = happens(row.from, row.event);
        if then != row.then {
            let now = then.join(" | ");
            let _ = writeln!(
                wrong,
                "{} | {} | {} | {now}",
                row.number, row.from, row.event
            );
        }
    }
    assert!(wrong.is_empty(), "these rows are otherwise now:\n{wrong}");
}

#[test]
fn every_phase_meets_every_event_in_some_row() {
    let rows = rows();
    let mut missing = Vec::new();
    for phase in PHASES {
        for event in EVENTS {
            let met = rows.iter().any(|row| {
                row.from.split(',').next() == Some(phase)
                    && row.event.split('(').next() == event.split('(').next()
                    && (!event.starts_with("Deadline") || row.event == event)
            });
            if !met {
                missing.push(format!("{phase} × {event}"));
            }
        }
    }
    assert!(missing.is_empty(), "no row for {missing:#?}");
}

#[test]
fn requests_are_always_answered_and_reports_never() {
    for row in rows() {
        let request = row.event.contains("Requested");
        assert_eq!(
            request,
            !row.then[2].is_empty(),
            "{} {}",
            row.from,
            row.event
        );
    }
}

#[test]
fn a_spawn_never_comes_without_its_notice_and_its_deadline() {
    for row in rows() {
        let spawns = row.then[1].matches("Spawn #").count();
        let full = row.then[1]
            .matches("“starting” · Spawn #8 · arm Start")
            .count();
        assert_eq!(spawns, full, "{} {}", row.from, row.event);
    }
}

#[test]
fn the_document_is_made_from_these_rows() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/state-machine.md");
    let made = render::document(
        rows()
            .iter()
            .map(|row| (row.number, row.from, row.event, &row.then)),
    );
    if std::env::var_os("LAIR_BLESS").is_some() {
        std::fs::write(&path, &made).expect("docs/ can be written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == made,
        "docs/state-machine.md is out of date: run with LAIR_BLESS=1"
    );
}
