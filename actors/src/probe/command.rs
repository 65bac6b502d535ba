//! A command in the module's context: exit code 0 is success.

use super::Finding;
use crate::backend::{ChildHandle, CommandOutcome};
use lair_supervision::{ExitStatus, ProbeOutcome};
use std::sync::Arc;
use std::time::Duration;

/// Characters of a command's own words that become evidence.
const MAX_WORDS: usize = 160;

pub(super) async fn run(
    argv: &[String],
    handle: Arc<dyn ChildHandle>,
    timeout: Duration,
) -> Finding {
    // Its arguments are not shown: they may hold a password.
    let program = argv.first().map_or("", String::as_str).to_owned();
    match handle.run(argv.to_vec(), timeout).await {
        CommandOutcome::Ended {
            status: ExitStatus::Code(0),
            ..
        } => Finding::new(ProbeOutcome::Success, format!("`{program}` succeeded")),
        CommandOutcome::Ended { status, output } => {
            let said = match status {
                ExitStatus::Code(code) => format!("`{program}` exited with {code}"),
                ExitStatus::Signal(signal) => format!("`{program}` was ended by signal {signal}"),
                ExitStatus::Unknown => {
                    let said = format!("`{program}` ended, and nobody could tell how");
                    return Finding::new(ProbeOutcome::CouldNotRun, said);
                }
            };
            Finding {
                outcome: ProbeOutcome::Failure,
                said,
                detail: words(&output),
            }
        }
        CommandOutcome::TimedOut => {
            let within = timeout.as_millis();
            let said = format!("`{program}` did not end within {within} ms and was ended");
            Finding::new(ProbeOutcome::TimedOut, said)
        }
        CommandOutcome::CouldNotRun(why) => {
            let said = format!("`{program}` could not be run: {why}");
            Finding::new(ProbeOutcome::CouldNotRun, said)
        }
    }
}

/// The first line that says something, harmless on a terminal.
fn words(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let Some(line) = text.lines().map(str::trim).find(|line| !line.is_empty()) else {
        return String::new();
    };
    let clean = line.chars().filter(|c| !c.is_control());
    format!(": {}", clean.take(MAX_WORDS).collect::<String>())
}

#[cfg(test)]
mod test {
    use super::words;

    #[test]
    fn evidence_is_one_short_line_without_control_characters() {
        assert_eq!(
            words(b"\n  \x1b[31mno response\x07\nmore\n"),
            ": [31mno response"
        );
        assert_eq!(words(&[b'x'; 70_000]).len(), 2 + 160);
        assert_eq!(words(b" \n"), "");
    }
}
