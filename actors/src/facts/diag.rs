//! The kernel's own list of what listens, asked over a netlink socket of `sock_diag`.
//!
//! Owns: that question and its answer. Promises: the kernel walks the listening sockets alone, so a question costs some
//! 10 µs whatever else the machine does; an answer that is cut off or strange is an error. Never: waits: the kernel
//! answers within the call that asks.

use super::sockets::Listening;
use rustix::net::netlink::SOCK_DIAG;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

/// `SOCK_DIAG_BY_FAMILY`, which is also what each entry of an answer is called.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The bit of the state `TCP_LISTEN`.
const LISTENING: u32 = 1 << 10;
/// Bytes of `nlmsghdr`.
const HEAD: usize = 16;
/// Bytes of `inet_diag_req_v2`, the last 48 of them a socket's identity that a dump ignores.
const REQUEST: usize = 56;
/// Bytes of `inet_diag_msg`, attributes not counted.
const ENTRY: usize = 72;
/// The most that the kernel puts into one message of such an answer.
const ROOM: usize = 32 << 10;

/// The TCP sockets that listen in our own network.
///
/// # Errors
/// Where the kernel has no `sock_diag` for TCP, or something keeps us from it.
pub(super) fn listening() -> io::Result<Listening> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        flags,
        Some(SOCK_DIAG),
    )?;
    let (mut found, mut space) = (Listening::new(), vec![0; ROOM]);
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        send(&socket, &request(family), SendFlags::empty())?;
        while !take(&mut found, told(&socket, &mut space)?)? {}
    }
    Ok(found)
}

fn request(family: AddressFamily) -> Vec<u8> {
    let mut text = Vec::with_capacity(HEAD + REQUEST);
    let length = u32::try_from(HEAD + REQUEST).unwrap_or_default();
    text.extend(length.to_ne_bytes());
    text.extend(BY_FAMILY.to_ne_bytes());
    text.extend(DUMP.to_ne_bytes());
    // Its number and its sender: there is one question at a time, and the kernel knows who asks.
    text.extend([0; 8]);
    let family = u8::try_from(family.as_raw()).unwrap_or_default();
    text.extend([family, libc::IPPROTO_TCP.to_le_bytes()[0], 0, 0]);
    text.extend(LISTENING.to_ne_bytes());
    text.resize(HEAD + REQUEST, 0);
    text
}

fn told<'s>(socket: &OwnedFd, space: &'s mut [u8]) -> io::Result<&'s [u8]> {
    let (_, length) = recv(socket, &mut *space, RecvFlags::DONTWAIT | RecvFlags::TRUNC)?;
    space.get(..length).ok_or_else(strange)
}

/// Takes one message of an answer. Was it the last?
fn take(found: &mut Listening, mut text: &[u8]) -> io::Result<bool> {
    while !text.is_empty() {
        let length = u32::from_ne_bytes(bytes(text, 0)?);
        let length = usize::try_from(length).map_err(|_| strange())?;
        let entry = text.get(HEAD..length).ok_or_else(strange)?;
        match u16::from_ne_bytes(bytes(text, 4)?) {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = i32::from_ne_bytes(bytes(entry, 0)?);
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            BY_FAMILY if entry.len() >= ENTRY => {
                let inode = u32::from_ne_bytes(bytes(entry, 68)?);
                let port = u16::from_be_bytes(bytes(entry, 4)?);
                let family = AddressFamily::from_raw(entry[0].into());
                let address = match family {
                    AddressFamily::INET => IpAddr::V4(Ipv4Addr::from(bytes::<4>(entry, 8)?)),
                    _ => IpAddr::V6(Ipv6Addr::from(bytes::<16>(entry, 8)?)),
                };
                found.insert(inode.into(), (address, port));
            }
            _ => return Err(strange()),
        }
        let next = length.next_multiple_of(4).min(text.len());
        text = &text[next..];
    }
    Ok(false)
}

fn bytes<const N: usize>(text: &[u8], at: usize) -> io::Result<[u8; N]> {
    let part = text.get(at..at + N).and_then(|part| part.try_into().ok());
    part.ok_or_else(strange)
}

fn strange() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "sock_diag answered strangely")
}

#[cfg(test)]
mod test {
    use super::{Listening, listening, request, take};
    use rustix::net::AddressFamily;
    use std::net::TcpListener;

    #[test]
    fn the_kernels_list_says_what_its_files_say() {
        let mut open = Vec::new();
        // More than one message has room for.
        for _ in 0..300 {
            open.push(TcpListener::bind("127.0.0.1:0").expect("a port"));
        }
        let six = TcpListener::bind("[::1]:0").ok();
        let found = listening().expect("sock_diag");
        let files = super::super::sockets::by_files().expect("/proc");
        for socket in open.iter().chain(&six) {
            let at = socket.local_addr().expect("an address");
            let at = (at.ip(), at.port());
            let inode = found.iter().find(|(_, place)| **place == at);
            let (inode, _) = inode.expect("in the kernel's list");
            assert_eq!(files.get(inode), Some(&at));
        }
    }

    #[test]
    fn an_answer_that_is_cut_off_or_says_no_is_an_error() {
        let mut error = Vec::new();
        error.extend(20u32.to_ne_bytes());
        error.extend(2u16.to_ne_bytes());
        error.extend([0; 10]);
        error.extend((-libc::ENOENT).to_ne_bytes());
        let fault = take(&mut Listening::new(), &error).expect_err("an error");
        assert_eq!(fault.raw_os_error(), Some(libc::ENOENT));
        let long = request(AddressFamily::INET);
        for cut in 1..long.len() {
            assert!(take(&mut Listening::new(), &long[..cut]).is_err(), "{cut}");
        }
        assert!(take(&mut Listening::new(), &[0; 16]).is_err());
    }
}
