//! What a child may still do: the words both ends of the keeper's socket speak about it.

use std::ffi::CString;

/// What is taken from a child before its first instruction. The default takes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confine {
    /// The capabilities it keeps, a bit each; untouched when absent.
    pub capabilities: Option<u64>,
    /// A network namespace of its own, with nothing but a loopback.
    pub network: OwnNetwork,
    /// What Landlock lets it touch; all that its user may when absent.
    pub landlock: Option<Landlock>,
}

/// Whether a child gets a network of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnNetwork {
    /// It sees the machine's.
    #[default]
    No,
    /// If the kernel allows it.
    IfPossible,
    /// Or it is not started.
    Required,
}

/// Rules for Landlock. What no rule is about is not restricted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Landlock {
    /// The files it may touch.
    pub files: Option<Files>,
    /// The TCP ports it may bind.
    pub bind: Option<Vec<u16>>,
    /// The TCP ports it may connect to.
    pub connect: Option<Vec<u16>>,
}

/// The files a child may touch; each path includes what is below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Read and execute, where it is there.
    pub system: Vec<CString>,
    /// Read and execute; it has to be there.
    pub read: Vec<CString>,
    /// All of it; it has to be there.
    pub write: Vec<CString>,
}

/// Landlock's version of files that can be restricted, and of TCP: what a set of rules needs.
impl Landlock {
    /// The least version of the kernel's interface that knows these rules.
    #[must_use]
    pub fn needs(&self) -> u32 {
        match (&self.bind, &self.connect) {
            (None, None) => 1,
            (Some(_), _) | (_, Some(_)) => 4,
        }
    }
}
