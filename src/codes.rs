//! Every stable code: what it means, and what to do now.
//!
//! Owns: the table that `docs/errors.md` is made of. Promises: whoever refuses without a next step of its own gets the one
//! of the table. Never: decides anything.

/// What has codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Requests: of the command line, over the bridge, to the library.
    Requests,
    /// Mistakes in what a person wrote.
    Mistakes,
    /// Why a module is in its state.
    Reasons,
    /// At which step a start failed.
    Stages,
    /// What an engine got wrong.
    Engines,
    /// What the program ends with.
    Exits,
}

/// One code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it appears.
    pub family: Family,
    /// The code, as printed and as in JSON.
    pub code: &'static str,
    /// What has happened.
    pub cause: &'static str,
    /// What to do now; empty where nothing is wrong.
    pub next: &'static str,
}

/// All codes, as documented.
pub fn all() -> impl Iterator<Item = Entry> {
    let mut family = Family::Requests;
    include_str!("codes.txt").lines().filter_map(move |line| {
        if let Some(head) = line.strip_prefix("# ") {
            family = named(head)?;
            return None;
        }
        let mut parts = line.split(" |").map(str::trim);
        Some(Entry {
            family,
            code: parts.next()?,
            cause: parts.next()?,
            next: parts.next()?,
        })
    })
}

fn named(head: &str) -> Option<Family> {
    Some(match head {
        "Requests" => Family::Requests,
        "Mistakes" => Family::Mistakes,
        "Reasons" => Family::Reasons,
        "Stages" => Family::Stages,
        "Engines" => Family::Engines,
        "Exits" => Family::Exits,
        _ => return None,
    })
}

/// What to do now about a request that was refused with this code.
#[must_use]
pub fn next_step(code: &str) -> Option<&'static str> {
    let mut requests = all().filter(|e| e.family == Family::Requests);
    requests.find(|e| e.code == code).map(|e| e.next)
}
