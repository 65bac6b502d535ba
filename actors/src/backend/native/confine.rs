//! What a native child is confined to: asked of the keeper before it runs, read from the kernel while it does.

use super::io_fault;
use crate::confinement::{Confinement, Sandboxed};
use crate::keeper::confine::{Confine, Files, Landlock, OwnNetwork};
use crate::keeper::landlock_abi;
use lair_manifests::launch::{Limits, Sandbox};
use lair_supervision::{StartFault, StartStage};
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The system's programs and libraries: without them hardly anything starts, and they are the same for everybody.
const SYSTEM: [&str; 9] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
];

/// The plan's words as the keeper's.
pub(super) fn confine(limits: &Limits) -> Result<Confine, StartFault> {
    let mut confine = Confine {
        capabilities: Some(limits.capabilities),
        ..Confine::default()
    };
    let Some(sandbox) = &limits.sandbox else {
        return Ok(confine);
    };
    if sandbox.no_network {
        confine.network = if sandbox.best_effort {
            OwnNetwork::IfPossible
        } else {
            OwnNetwork::Required
        };
    }
    check_paths(sandbox)?;
    confine.landlock = rules(sandbox).filter(|rules| {
        // Where it is required and can't be had, the keeper says so.
        !sandbox.best_effort || landlock_abi() >= rules.needs()
    });
    Ok(confine)
}

fn rules(sandbox: &Sandbox) -> Option<Landlock> {
    let files = match (&sandbox.read, &sandbox.write) {
        (None, None) => None,
        (read, write) => Some(Files {
            system: SYSTEM
                .iter()
                .filter_map(|p| CString::new(*p).ok())
                .collect(),
            read: paths(read.as_deref()),
            write: paths(write.as_deref()),
        }),
    };
    let (bind, connect) = (sandbox.bind.clone(), sandbox.connect.clone());
    let any = files.is_some() || bind.is_some() || connect.is_some();
    any.then_some(Landlock {
        files,
        bind,
        connect,
    })
}

fn paths(paths: Option<&[PathBuf]>) -> Vec<CString> {
    let text = |path: &PathBuf| CString::new(path.as_os_str().as_bytes()).ok();
    paths.unwrap_or_default().iter().filter_map(text).collect()
}

/// A path that is not there can't be allowed, and to leave it out in silence would be a start that fails later.
fn check_paths(sandbox: &Sandbox) -> Result<(), StartFault> {
    for path in sandbox.read.iter().chain(&sandbox.write).flatten() {
        fs::metadata(path).map_err(|e| {
            let doing = format!("allow {} in its sandbox", path.display());
            io_fault(StartStage::DropPrivileges, &doing, &e)
        })?;
    }
    Ok(())
}

/// What the kernel says of a running child; `None` if it is gone.
pub(super) fn observed(pid: i32, limits: &Limits) -> Option<Confinement> {
    let mut seen = Confinement::of(pid)?;
    seen.sandbox = limits.sandbox.as_ref().map(|wish| sandboxed(pid, wish));
    Some(seen)
}

fn sandboxed(pid: i32, wish: &Sandbox) -> Sandboxed {
    let place = |pid: &str| fs::read_link(Path::new("/proc").join(pid).join("ns/net")).ok();
    let own = match (place("self"), place(&pid.to_string())) {
        (Some(ours), Some(its)) if ours != its => "none",
        (Some(_), Some(_)) => "host",
        _ => "unknown",
    };
    let abi = landlock_abi();
    // A child that could not enter its ruleset was never executed, so rules that were given are held.
    let rules = rules(wish).filter(|r| abi >= r.needs());
    let files = rules.as_ref().and_then(|r| r.files.as_ref());
    let shown = |paths: &[CString]| -> Vec<String> {
        paths
            .iter()
            .map(|p| p.to_string_lossy().into_owned())
            .collect()
    };
    let asked = wish.read.is_some()
        || wish.write.is_some()
        || wish.bind.is_some()
        || wish.connect.is_some();
    let missing = (asked && rules.is_none()) || (wish.no_network && own != "none");
    Sandboxed {
        network: own.to_owned(),
        read: files.map(|f| shown(&f.read)),
        write: files.map(|f| shown(&f.write)),
        bind: rules.as_ref().and_then(|r| r.bind.clone()),
        connect: rules.as_ref().and_then(|r| r.connect.clone()),
        landlock_abi: rules.is_some().then_some(abi),
        complete: !missing,
    }
}
