//! Why a module is as it is, or why one of its runs ended as it did.

use super::words::denied;
use super::{Refused, RuntimeHandle};
use lair_actors::dossier::{self, Composer, Dossier, LINES};
use lair_actors::view::View;
use lair_supervision::{DeniedReason, DownReason, Phase};
use std::path::Path;
use std::time::Duration;

/// What has just ended may take so long to be written down.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);

/// Lines of each stream in the largest dossier.
const MOST_LINES: usize = 2000;

impl RuntimeHandle {
    /// The dossier of a run: of the newest, of number `run`, or for a negative `run` of the one so many before the
    /// newest. Reads files: call it off the hot path. Works for modules that are not loaded any more, too.
    ///
    /// # Errors
    /// `unknown_module`; `unknown_run` where no dossier of it is kept; `dossier_unreadable`.
    pub fn why(&self, name: &str, run: Option<i64>) -> Result<Dossier, Refused> {
        self.why_with(name, run, LINES)
    }

    /// The same with so many lines of each stream, as far as the log still has them: of the newest run only.
    ///
    /// # Errors
    /// As [`RuntimeHandle::why`].
    pub fn why_with(&self, name: &str, run: Option<i64>, lines: usize) -> Result<Dossier, Refused> {
        self.inner.archive.finish(WRITTEN_WITHIN);
        let Some(view) = self.inner.board.get(name) else {
            let kept = recorded(self.log_dir(), name, run, false);
            return kept.map_err(|no| match no.code {
                "unknown_module" => self.refusal(DeniedReason::UnknownModule, name),
                _ => no,
            });
        };
        let newest = view.child.inc;
        let run = match run {
            None => newest,
            Some(run) => {
                u64::try_from(run).unwrap_or_else(|_| newest.saturating_sub(run.unsigned_abs()))
            }
        };
        // Its last run may have been in an earlier life of the runtime: only the file tells of that one.
        if run == newest && !(never_started(&view) && newest > 0) {
            let composer = Composer {
                lines: lines.min(MOST_LINES),
                ..self.inner.archive.options().composer()
            };
            let mut dossier = composer.compose(newest, &view, Some(&view));
            if dossier.identity.is_none() {
                // Who it was, and what it used, is known while it lives, and after that only to its file.
                let kept = dossier::read(self.log_dir(), name, newest).ok().flatten();
                if let Some(kept) = kept {
                    dossier.identity = kept.identity;
                    dossier.series = dossier.series.or(kept.series);
                    dossier.footprint = kept.footprint.or(dossier.footprint);
                }
            }
            return Ok(dossier);
        }
        recorded(self.log_dir(), name, i64::try_from(run).ok(), true)
    }
}

fn never_started(view: &View) -> bool {
    matches!(view.child.phase, Phase::Down(DownReason::NeverStarted))
}

/// The dossier on disk; of a module that is `loaded`, so known though it may have none yet.
///
/// # Errors
/// As [`RuntimeHandle::why`].
pub(crate) fn recorded(
    log_dir: &Path,
    name: &str,
    run: Option<i64>,
    loaded: bool,
) -> Result<Dossier, Refused> {
    let unreadable = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::InvalidInput => denied(DeniedReason::UnknownModule, name),
        _ => Refused::new(
            "dossier_unreadable",
            format!("the dossier can't be read: {e}"),
        )
        .help("`lair logs NAME` shows what the module printed"),
    };
    let runs = dossier::kept_runs(log_dir, name).map_err(unreadable)?;
    let newest = match runs.last() {
        Some(newest) => *newest,
        None if loaded => 0,
        None => return Err(denied(DeniedReason::UnknownModule, name)),
    };
    let wanted = match run {
        None => newest,
        Some(run) => {
            u64::try_from(run).unwrap_or_else(|_| newest.saturating_sub(run.unsigned_abs()))
        }
    };
    dossier::read(log_dir, name, wanted)
        .map_err(unreadable)?
        .ok_or_else(|| {
            let kept: Vec<String> = runs.iter().map(u64::to_string).collect();
            Refused::new(
                "unknown_run",
                format!("no dossier of run {wanted} of `{name}` is kept"),
            )
            .help(&format!("kept are those of run {}", kept.join(", ")))
        })
}
