//! `lair report`: a run over time, as text or as one page that needs nothing else.
//!
//! Owns: what is printed, and the page's file. Promises: the page is one file without a script and without an address; what the
//! module said is text in it and nothing else. Never: asks for more than [`super::why`] does.

mod html;
mod model;
mod svg;
mod text;

use super::args::{Global, Report};
use super::error::CliError;
use super::exit::{self, Code};
use super::out;
use super::query;
use super::top;
use super::why::{Source, page};
use lair_actors::dossier::Dossier;
use model::Course;
use serde_json::json;
use std::path::Path;

/// Runs before it that are listed.
const EARLIER: i64 = 8;

/// A run before the one that the report is about.
pub(super) struct Earlier {
    run: u64,
    started_at: Option<String>,
    ran_ms: Option<u64>,
    failed: bool,
    summary: String,
}

/// `lair report`
///
/// # Errors
/// There is no such module or run, or the file can't be written.
pub fn report(global: &Global, args: &Report) -> Result<Code, CliError> {
    let mut source = Source::open(global)?;
    let mut dossier = source.dossier(&args.name, args.run, None)?;
    let earlier = earlier(&mut source, &dossier);
    let out = query::out(global);
    if let Some(file) = &args.html {
        let text = html::page(&dossier, &Course::of(&dossier), &earlier);
        return write(file, &text, &dossier);
    }
    if out.structured() {
        let marks: Vec<_> = Course::of(&dossier)
            .marks
            .iter()
            .map(|m| json!({ "at_ms": m.at_ms, "at": m.time, "what": m.what }))
            .collect();
        let earlier: Vec<_> = earlier
            .iter()
            .map(|e| json!({ "run": e.run, "started_at": e.started_at, "ran_ms": e.ran_ms, "failed": e.failed, "summary": e.summary }))
            .collect();
        let series = dossier.series.take();
        out.value(
            &json!({ "format": "lair-report/1", "name": dossier.name, "run": dossier.run,
            "series": series, "marks": marks, "earlier": earlier, "dossier": dossier }),
        )?;
        return Ok(exit::DONE);
    }
    let course = text::page(&Course::of(&dossier), top::speaks_utf8(), &out.style);
    out.text(&format!("{course}\n{}", page(&dossier, &out.style)))?;
    Ok(exit::DONE)
}

/// As far as their dossiers are kept, newest first.
fn earlier(source: &mut Source, dossier: &Dossier) -> Vec<Earlier> {
    let newest = i64::try_from(dossier.run).unwrap_or(0);
    let runs = (1..=EARLIER).map(|back| newest - back);
    runs.filter(|run| *run > 0)
        .map_while(|run| source.dossier(&dossier.name, Some(run), Some(1)).ok())
        .map(|d| Earlier {
            run: d.run,
            started_at: d.started_at,
            ran_ms: d.ran_ms,
            failed: d.failed,
            summary: d.summary,
        })
        .collect()
}

fn write(file: &Path, text: &str, dossier: &Dossier) -> Result<Code, CliError> {
    if file == Path::new("-") {
        return out::write(text.as_bytes()).map(|_| exit::DONE);
    }
    std::fs::write(file, text).map_err(|e| {
        CliError::new("output", format!("cannot write {}: {e}", file.display()))
            .with_help("name a file in a folder that you may write to")
    })?;
    out::say(&format!(
        "{}: run {} of {}. It has the module's last lines in it: read it before you publish it\n",
        file.display(),
        dossier.run,
        dossier.name
    ));
    Ok(exit::DONE)
}
