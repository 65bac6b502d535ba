//! What a module is really held to, as the kernel tells it.

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
