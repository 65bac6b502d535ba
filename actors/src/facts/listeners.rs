//! Which sockets a tree really listens on, and who holds a port.

use super::sockets::listening;
use super::table::pids;
use crate::backend::Tree;
use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::{FDTarget, Process, all_processes};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::net::IpAddr;

/// A listening TCP socket of a module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Listener {
    /// The address it is bound to.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The lowest numbered process of the tree that holds it.
    pub pid: i32,
}

/// Who holds a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// A process that holds the socket.
    pub pid: i32,
    /// Its name as the kernel has it: never its arguments, which may hold secrets.
    pub command: String,
}

/// The listening TCP sockets of a tree, in order of address and port.
#[must_use]
pub fn listeners(tree: &Tree) -> Vec<Listener> {
    let mut namespaces: BTreeMap<u64, BTreeMap<u64, (IpAddr, u16)>> = BTreeMap::new();
    let own = Process::myself().ok().and_then(|me| net_namespace(&me));
    let mut found = BTreeMap::new();
    for pid in pids(tree) {
        let Ok(process) = Process::new(pid) else {
            continue;
        };
        // Containers live in network namespaces of their own: ask each process for its own table, once a namespace.
        let table = match net_namespace(&process) {
            Some(namespace) => namespaces.entry(namespace).or_insert_with(|| {
                if own == Some(namespace) {
                    listening().unwrap_or_default()
                } else {
                    listening_for(&process)
                }
            }),
            None => namespaces.entry(0).or_default(),
        };
        for inode in sockets(&process) {
            if let Some((address, port)) = table.get(&inode) {
                found.entry((*address, *port)).or_insert(pid);
            }
        }
    }
    found
        .into_iter()
        .map(|((address, port), pid)| Listener { address, port, pid })
        .collect()
}

/// Who listens on a TCP port of our own network namespace, as far as we may see.
#[must_use]
pub fn port_holder(port: u16) -> Option<Holder> {
    let inodes: BTreeSet<u64> = listening()
        .ok()?
        .into_iter()
        .filter(|(_, (_, bound))| *bound == port)
        .map(|(inode, _)| inode)
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let process = all_processes()
        .ok()?
        .flatten()
        .find(|process| sockets(process).any(|inode| inodes.contains(&inode)))?;
    Some(Holder {
        pid: process.pid,
        command: process.stat().map(|stat| stat.comm).unwrap_or_default(),
    })
}

fn listening_for(process: &Process) -> BTreeMap<u64, (IpAddr, u16)> {
    let v4 = process.tcp().unwrap_or_default();
    let v6 = process.tcp6().unwrap_or_default();
    v4.iter()
        .chain(&v6)
        .filter(|entry| entry.state == TcpState::Listen)
        .map(|entry: &TcpNetEntry| {
            let local = entry.local_address;
            (entry.inode, (local.ip(), local.port()))
        })
        .collect()
}

fn sockets(process: &Process) -> impl Iterator<Item = u64> + use<> {
    process
        .fd()
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|fd| match fd.target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        })
}

fn net_namespace(process: &Process) -> Option<u64> {
    let namespaces = process.namespaces().ok()?;
    Some(namespaces.0.get(OsStr::new("net"))?.identifier)
}
