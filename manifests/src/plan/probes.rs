//! The mechanical half of the probes: what is asked, of whom.
//!
//! Owns: the mapping from a probe's kind to an action with numbers in it. Promises: every probe is asked on 127.0.0.1.
//! Never: holds thresholds; those are the policy's.

use super::Planner;
use crate::health::{Http, LogLine, PortRef, Tcp};
use crate::launch::{ProbeAction, ProbeActions, StartupAction};
use crate::text::Command;
use crate::words::PortName;

/// The kinds that ask, with what tells by itself as the last resort.
struct Kinds<'k> {
    place: &'static str,
    command: Option<&'k Command>,
    http: Option<&'k Http>,
    tcp: Option<&'k Tcp>,
    log: Option<&'k LogLine>,
    image: bool,
}

impl Planner<'_> {
    pub(super) fn probes(&mut self) -> ProbeActions {
        let health = &self.module.runtime.health;
        let startup = health.startup.as_ref().and_then(|p| {
            let action = self.action(&Kinds {
                place: "/runtime/health/startup",
                command: p.command.as_ref(),
                http: p.http.as_ref(),
                tcp: p.tcp.as_ref(),
                log: p.log.as_ref(),
                image: p.image,
            })?;
            Some(StartupAction {
                action,
                stall: p.stall.map(|s| s.get()),
            })
        });
        let told = || StartupAction {
            action: ProbeAction::Notify,
            stall: None,
        };
        let readiness = health.readiness.as_ref().and_then(|p| {
            self.action(&Kinds {
                place: "/runtime/health/readiness",
                command: p.command.as_ref(),
                http: p.http.as_ref(),
                tcp: p.tcp.as_ref(),
                log: p.log.as_ref(),
                image: p.image,
            })
        });
        let liveness = health.liveness.as_ref().and_then(|p| {
            self.action(&Kinds {
                place: "/runtime/health/liveness",
                command: p.command.as_ref(),
                http: p.http.as_ref(),
                tcp: p.tcp.as_ref(),
                log: None,
                image: p.image,
            })
        });
        let short = health.command.as_ref();
        let short = short.and_then(|c| self.command(c, "/runtime/health/command"));
        ProbeActions {
            startup: startup.or_else(|| health.ready.map(|_| told())),
            readiness,
            liveness: liveness.or(short.map(ProbeAction::Command)),
        }
    }

    fn action(&mut self, kinds: &Kinds<'_>) -> Option<ProbeAction> {
        let address = || "127.0.0.1".to_owned();
        if let Some(command) = kinds.command {
            let words = self.command(command, &format!("{}/command", kinds.place))?;
            return Some(ProbeAction::Command(words));
        }
        if let Some(http) = kinds.http {
            let path = self.text(&http.path, &format!("{}/http/path", kinds.place))?;
            let expect = http.expect.and_then(|e| u16::try_from(e.get()).ok());
            let port = self.port(&http.port)?;
            return Some(ProbeAction::Http {
                address: address(),
                port,
                path,
                expect,
            });
        }
        if let Some(tcp) = kinds.tcp {
            return Some(ProbeAction::Tcp {
                address: address(),
                port: self.port(&tcp.port)?,
            });
        }
        if let Some(log) = kinds.log {
            return Some(ProbeAction::Log {
                pattern: log.pattern.to_string(),
            });
        }
        Some(if kinds.image {
            ProbeAction::Image
        } else {
            ProbeAction::Notify
        })
    }

    /// Parsing has seen to it that a named port exists.
    fn port(&self, port: &PortRef) -> Option<u16> {
        match port {
            PortRef::Number(number) => u16::try_from(number.get()).ok(),
            PortRef::Name(name) => self.ports.get(PortName::as_str(name)).copied(),
        }
    }
}
