//! One look at a module: HTTP, TCP, a command, or what the module says by itself.
//!
//! Owns: the probers, as plain tasks. Promises: bounded time and bytes whatever the other side does; what is our own
//! fault (no such program, no descriptors left) is `CouldNotRun` and no verdict on the module. Never: counts, decides,
//! follows a redirect, or speaks to anything but the numeric address it was given.

#![allow(
    clippy::disallowed_methods,
    reason = "real probes take real time; simulated ones never come here"
)]

mod command;
mod http;
pub mod notify;
mod patience;
pub mod ready;
mod tcp;

pub use patience::{Patience, slack, within};

use crate::backend::ChildHandle;
use lair_manifests::launch::{Errand, ProbeAction};
use lair_supervision::ProbeOutcome;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Bytes of an answer that are looked at.
pub const MAX_ANSWER: usize = 64 << 10;
/// How much longer than its timeout a command may take before its runner is taken for lost.
const BACKSTOP: Duration = Duration::from_secs(2);

/// What one look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The answer.
    pub outcome: ProbeOutcome,
    /// The evidence, worded so that the same finding reads the same.
    pub said: String,
    /// What differs from look to look: a command's own words.
    pub detail: String,
    /// How long it took.
    pub took: Duration,
    /// We ourselves were kept from running meanwhile: a failure may be ours.
    pub starved: bool,
}

impl Look {
    /// The evidence in one sentence.
    #[must_use]
    pub fn evidence(&self) -> String {
        match self.outcome {
            ProbeOutcome::Success | ProbeOutcome::Failure => {
                let Look { said, detail, .. } = self;
                format!("{said} in {} ms{detail}", self.took.as_millis())
            }
            ProbeOutcome::TimedOut | ProbeOutcome::CouldNotRun => self.said.clone(),
        }
    }

    /// An answer that took no time: the module said it by itself, or the question could not be put.
    #[must_use]
    pub fn told(outcome: ProbeOutcome, said: String) -> Self {
        Look {
            outcome,
            said,
            detail: String::new(),
            took: Duration::ZERO,
            starved: false,
        }
    }
}

/// An answer and its evidence.
struct Finding {
    outcome: ProbeOutcome,
    said: String,
    detail: String,
}

impl Finding {
    fn new(outcome: ProbeOutcome, said: String) -> Self {
        let detail = String::new();
        Finding {
            outcome,
            said,
            detail,
        }
    }
}

/// Puts the question once. Resolves within `timeout` of our own running time, a command's within two seconds more.
pub async fn look(action: &ProbeAction, handle: Arc<dyn ChildHandle>, timeout: Duration) -> Look {
    let started = Instant::now();
    let (finding, starved) = match action {
        ProbeAction::Http {
            address,
            port,
            path,
            expect,
        } => {
            let asked = http::name(address, *port, path);
            let answer = within(timeout, http::get(address, *port, path, *expect)).await;
            settle(answer, &asked, timeout)
        }
        ProbeAction::Tcp { address, port } => {
            let asked = tcp::name(address, *port);
            let answer = within(timeout, tcp::connect(address, *port)).await;
            settle(answer, &asked, timeout)
        }
        ProbeAction::Command(argv) => {
            let limit = timeout.saturating_add(BACKSTOP);
            let answer = within(limit, command::run(argv, handle, timeout)).await;
            let lost = "the probe's command was neither ended nor reported in time";
            let finding = answer
                .value
                .unwrap_or_else(|| Finding::new(ProbeOutcome::CouldNotRun, lost.into()));
            (finding, answer.starved)
        }
        ProbeAction::Log { .. } | ProbeAction::Notify => {
            let why = "the module says this by itself and is not asked";
            (Finding::new(ProbeOutcome::CouldNotRun, why.into()), false)
        }
        ProbeAction::Image => image(handle, timeout).await,
    };
    Look {
        outcome: finding.outcome,
        said: finding.said,
        detail: finding.detail,
        took: started.elapsed(),
        starved,
    }
}

/// Sends a request on somebody's behalf, once. Resolves within its time, counted in our own running time.
///
/// # Errors
/// One sentence: what was asked, and what came of it.
pub async fn errand(errand: &Errand) -> Result<(), String> {
    let answer = within(errand.within, http::send(errand)).await;
    answer.value.unwrap_or_else(|| {
        let Errand { method, path, .. } = errand;
        let path = path.split('?').next().unwrap_or_default();
        let time = lair_manifests::units::show(errand.within);
        Err(format!("{method} {path} did not answer within {time}"))
    })
}

/// The image's own check, run inside as a command is.
async fn image(handle: Arc<dyn ChildHandle>, timeout: Duration) -> (Finding, bool) {
    let Some(check) = handle.image_check() else {
        let why = "the image has no health check";
        return (Finding::new(ProbeOutcome::CouldNotRun, why.into()), false);
    };
    let limit = timeout.saturating_add(BACKSTOP);
    let answer = within(limit, command::run(&check.argv, handle, timeout)).await;
    let lost = "the image's check was neither ended nor reported in time";
    let mut finding = answer
        .value
        .unwrap_or_else(|| Finding::new(ProbeOutcome::CouldNotRun, lost.into()));
    let failed = matches!(
        finding.outcome,
        ProbeOutcome::Failure | ProbeOutcome::TimedOut
    );
    if failed && !check.start_period.is_zero() {
        finding.outcome = ProbeOutcome::CouldNotRun;
        finding.said = format!("within the image's start period, {}", finding.said);
    }
    (finding, answer.starved)
}

fn settle(answer: Patience<Finding>, asked: &str, timeout: Duration) -> (Finding, bool) {
    let finding = answer.value.unwrap_or_else(|| {
        let within = timeout.as_millis();
        let said = format!("{asked} did not answer within {within} ms");
        Finding::new(ProbeOutcome::TimedOut, said)
    });
    (finding, answer.starved)
}

/// A connection that could not be made: is it the module's answer, or our own lack?
fn connect_failed(asked: &str, error: &io::Error) -> Finding {
    let ours = matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS | libc::EADDRNOTAVAIL)
    );
    if ours {
        let said = format!("{asked} could not be asked: {error}");
        return Finding::new(ProbeOutcome::CouldNotRun, said);
    }
    let said = match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("{asked} was refused"),
        _ => format!("{asked} failed: {error}"),
    };
    Finding::new(ProbeOutcome::Failure, said)
}

#[cfg(test)]
mod test {
    use super::{connect_failed, http};
    use lair_supervision::ProbeOutcome::{CouldNotRun, Failure};
    use std::io::Error;

    #[test]
    fn our_own_lack_is_no_verdict_on_the_module() {
        let outcome = |errno| connect_failed("it", &Error::from_raw_os_error(errno)).outcome;
        assert_eq!(outcome(libc::EMFILE), CouldNotRun);
        assert_eq!(outcome(libc::EADDRNOTAVAIL), CouldNotRun);
        assert_eq!(outcome(libc::ECONNREFUSED), Failure);
        assert_eq!(outcome(libc::ECONNRESET), Failure);
    }

    #[test]
    fn evidence_shows_no_query() {
        let name = http::name("::1", 80, "/health?key=secret");
        assert_eq!(name, "GET http://[::1]:80/health");
    }
}
