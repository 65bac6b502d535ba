//! The TCP sockets that listen in our own network, read at the least cost: this is looked at again and again.

use super::diag;
use super::listeners::Holder;
use super::table::{ProcessTable, pids_in};
use crate::backend::Tree;
use lair_manifests::launch::Port;
use lair_supervision::exposure::Socket;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Listening sockets by their inode. A module in a network of its own has none here.
pub type Listening = BTreeMap<u64, (IpAddr, u16)>;

/// Reads them: of the kernel's own list, or where there is none, of files that cost a hundred times as much.
///
/// # Errors
/// When /proc can't be read either.
pub fn listening() -> io::Result<Listening> {
    listed().map_or_else(by_files, Ok)
}

/// The same of the kernel's own list alone, which takes no longer than a thread would to begin. `None`: it has none.
#[must_use]
pub fn listed() -> Option<Listening> {
    let found = diag::listening();
    found
        .inspect_err(|fault| tracing::debug!(%fault, "no sock_diag"))
        .ok()
}

// A file names what listens first; but the kernel goes through its table of all connections, empty or not, until it has
// filled a page: milliseconds on a large machine.
pub(super) fn by_files() -> io::Result<Listening> {
    let mut found = Listening::new();
    read(&mut found, "/proc/self/net/tcp")?;
    match read(&mut found, "/proc/self/net/tcp6") {
        // A kernel without IPv6.
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
        other => other?,
    }
    Ok(found)
}

fn read(found: &mut Listening, path: &str) -> io::Result<()> {
    let mut lines = BufReader::new(File::open(path)?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    loop {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_ascii_whitespace();
        let (local, state) = (words.nth(1), words.nth(1));
        if state != Some("0A") {
            return Ok(());
        }
        let inode = words.nth(5).and_then(|word| word.parse().ok());
        if let (Some(place), Some(inode)) = (local.and_then(place), inode) {
            found.insert(inode, place);
        }
    }
}

/// `0100007F:1F90`: words of four bytes in the machine's order, and the port.
fn place(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = address.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let mut bytes = [0; 16];
            for (part, word) in bytes.chunks_exact_mut(4).zip(words) {
                part.copy_from_slice(&word);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some((address, port))
}

/// Which of the listening sockets belong to a tree, and whether all of its processes could be looked at.
#[must_use]
pub fn sockets_of(tree: &Tree, table: &ProcessTable, listening: &Listening) -> (Vec<Socket>, bool) {
    if listening.is_empty() {
        return (Vec::new(), true);
    }
    let (mut found, mut complete) = (BTreeMap::new(), true);
    for pid in pids_in(tree, table) {
        match held(pid) {
            Ok(inodes) => {
                for place in inodes.iter().filter_map(|inode| listening.get(inode)) {
                    found.entry(*place).or_insert(pid);
                }
            }
            Err(fault) => complete &= is_gone(&fault),
        }
    }
    let sockets = found
        .into_iter()
        .map(|((address, port), pid)| Socket { address, port, pid });
    (sockets.collect(), complete)
}

/// A declared port that somebody listens on already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The address that is bound.
    pub address: IpAddr,
    /// Who holds it; `None`: a process that may not be looked at.
    pub holder: Option<Holder>,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.holder {
            Some(Holder { pid, command }) => write!(f, "pid {pid} ({command})"),
            None => f.write_str("a process that lair may not look at"),
        }
    }
}

/// The first of these ports on which a module could not listen. Where /proc can't be read, none.
#[must_use]
pub fn taken_port(ports: &[Port]) -> Option<(&Port, Taken)> {
    if ports.is_empty() {
        return None;
    }
    let listening = listening().ok()?;
    ports.iter().find_map(|port| {
        let wanted: IpAddr = port.address.parse().ok()?;
        let in_the_way = |address: IpAddr| {
            address.is_unspecified() || wanted.is_unspecified() || address.to_canonical() == wanted
        };
        let (inode, (address, _)) = listening
            .iter()
            .find(|(_, (address, number))| *number == port.port && in_the_way(*address))?;
        let (address, holder) = (*address, holder(*inode));
        Some((port, Taken { address, holder }))
    })
}

fn holder(inode: u64) -> Option<Holder> {
    let names = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = names.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let pid = pids.find(|pid| held(*pid).is_ok_and(|inodes| inodes.contains(&inode)))?;
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let command = command.trim_end().to_owned();
    Some(Holder { pid, command })
}

/// The inodes of a process's sockets.
fn held(pid: i32) -> io::Result<Vec<u64>> {
    let mut inodes = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let link = match fs::read_link(entry?.path()) {
            Ok(link) => link,
            Err(fault) if is_gone(&fault) => continue,
            Err(fault) => return Err(fault),
        };
        let text = link.to_str().and_then(|text| text.strip_prefix("socket:["));
        inodes.extend(text.and_then(|text| text.strip_suffix(']')?.parse::<u64>().ok()));
    }
    Ok(inodes)
}

fn is_gone(fault: &io::Error) -> bool {
    fault.kind() == io::ErrorKind::NotFound || fault.raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod test {
    use super::{listening, place};
    use std::net::TcpListener;

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        let told = |text| place(text).map(|(address, port)| format!("{address} {port}"));
        if cfg!(target_endian = "little") {
            assert_eq!(told("0100007F:1F90").as_deref(), Some("127.0.0.1 8080"));
            let loopback = "00000000000000000000000001000000:0050";
            assert_eq!(told(loopback).as_deref(), Some("::1 80"));
        }
        assert_eq!(told("0100007F"), None);
        assert_eq!(told("01:1"), None);
    }

    #[test]
    fn a_listening_socket_is_found_and_gone_when_it_is_closed() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = socket.local_addr().expect("an address");
        let seen = || {
            let found = listening().expect("/proc");
            found.values().any(|place| *place == (at.ip(), at.port()))
        };
        assert!(seen());
        drop(socket);
        assert!(!seen());
    }
}
