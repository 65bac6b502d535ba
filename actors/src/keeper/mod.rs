//! The keeper: the small single-threaded process that is the parent of every native child.
//!
//! It owns the children's parenthood: their set-up, their exit statuses, one end of their streams, and the
//! proof that a whole tree is gone. It promises that the death of the runtime loses no status and no byte.
//! It never decides anything: no restarts, no time limits of its own, no async runtime.
//!
//! ```text
//!   runtime ── KeeperClient ──SEQPACKET──▶ keeper ──vfork──▶ child
//!      ▲                                     │
//!      └───── Spawned / Exited / Empty ──────┘
//! ```
//!
//! A program that embeds lair calls [`hijack`] first thing in `main`, or names another program that does.

#![allow(
    clippy::disallowed_methods,
    reason = "the keeper is a process of its own and this is its end"
)]
// Unsafe is confined to this module: set-up between vfork and exec, descriptor passing and wait statuses have
// no safe wrapper that is right for a process sharing memory with its child. Each block says why it is sound.
#![allow(unsafe_code)]

mod boot;
mod cgroup;
mod children;
mod chores;
mod client;
mod clone;
pub mod confine;
mod door;
mod enter;
mod exec;
mod family;
mod kill;
mod landlock;
mod mask;
pub mod memory;
mod message;
mod obey;
pub mod orphan;
pub mod pages;
mod restrict;
mod serve;
pub mod spec;
mod store;
mod storm;
mod tree;
pub mod wire;

pub use client::{
    AdoptedChild, EmptyNote, ExitNote, Inheritance, KeeperClient, KeeperOptions, SendFault,
    SpawnedChild, Streams,
};
pub use landlock::landlock_abi;
pub use mask::{become_program, hold_back};
pub use spec::{
    CgroupDir, ChildKey, DeathPolicy, Ending, ProcessId, Rlimit, Scope, SpawnFault, SpawnSpec,
    SpecFault, Stage,
};

/// The hidden verb by which a program is asked to be the keeper.
pub(crate) const KEEPER_VERB: &str = "__keeper";

/// Lets all threads of this program share one heap. For a program, early in `main`; a host decides for itself. lair
/// has few threads, and each heap keeps what its busiest moment needed.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) is called before there is a second thread.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Becomes the keeper, and ends with it, if this process was started to be one; else returns at once.
/// Call it first thing in `main`.
pub fn hijack() {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|verb| verb == KEEPER_VERB)
    {
        main(std::env::args_os());
    }
}

/// Runs the keeper with a program's arguments: `[name, "__keeper", keep|GRACE_MS, SOCKET?, VERSION?]`.
///
/// Ends with 0 when nothing is left to be kept, with 64 if it was called wrongly, with 70 if the system refused
/// what it cannot do without.
pub fn main(args: impl Iterator<Item = std::ffi::OsString>) -> ! {
    let Some(orders) = boot::Orders::parse(args.skip(2)) else {
        std::process::exit(64)
    };
    let served = boot::settle().and_then(|ground| serve::Keeper::new(ground, &orders)?.run());
    std::process::exit(if served.is_ok() { 0 } else { 70 })
}
