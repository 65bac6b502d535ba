//! What a module is really held to, as the kernel tells it.

use lair_manifests::capability;
use serde::{Deserialize, Serialize};

/// What a running module is held to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// It can't gain privileges by executing a program.
    pub no_new_privs: bool,
    /// Names of the capabilities that are in effect; empty: none.
    pub capabilities: Vec<String>,
    /// Its user (effective).
    pub uid: u32,
    /// Its group (effective).
    pub gid: u32,
    /// What of its sandbox holds; `null`: it asked for none.
    pub sandbox: Option<Sandboxed>,
    /// `none`, `strict`, `filter`.
    pub seccomp: String,
}

/// What of a sandbox holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandboxed {
    /// `host`: the machine's network; `none`: one of its own with nothing in it; `unknown`.
    pub network: String,
    /// What it may read and execute beside the system's programs and libraries; `null`: no rule.
    pub read: Option<Vec<String>>,
    /// What it may also write; `null`: no rule.
    pub write: Option<Vec<String>>,
    /// TCP ports it may bind; `null`: no rule.
    pub bind: Option<Vec<u16>>,
    /// TCP ports it may connect to; `null`: no rule.
    pub connect: Option<Vec<u16>>,
    /// Version of the kernel's Landlock that holds these rules; `null`: none does.
    pub landlock_abi: Option<u32>,
    /// All that was asked for holds.
    pub complete: bool,
}

impl Confinement {
    /// Of a process, as the kernel tells it; without a sandbox. `None`: it is gone, or can't be seen.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.strip_prefix(':').map(str::trim)
        };
        let first = |name: &str| field(name)?.split_whitespace().nth(1)?.parse::<u32>().ok();
        let effective = u64::from_str_radix(field("CapEff")?, 16).ok()?;
        let seccomp = match field("Seccomp") {
            Some("0") | None => "none",
            Some("1") => "strict",
            Some(_) => "filter",
        };
        Some(Confinement {
            no_new_privs: field("NoNewPrivs") == Some("1"),
            capabilities: capability::names(effective),
            uid: first("Uid")?,
            gid: first("Gid")?,
            sandbox: None,
            seccomp: seccomp.to_owned(),
        })
    }
}
