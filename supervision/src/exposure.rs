//! Whether a module listens where it said it would, and nowhere else.
//!
//! Owns: the comparison of declared ports with sockets that were seen. Promises: an undeclared socket is a violation on
//! any address, a declared one on any but the loopback unless it was declared for others; what could not be seen is
//! `Unknown`. Never: looks at a socket.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// A port as declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declared {
    /// TCP port.
    pub port: u16,
    /// Meant for other machines, too.
    pub lan: bool,
}

/// A listening TCP socket of a module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Socket {
    /// The address it is bound to.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// A process of the module that holds it.
    pub pid: i32,
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = std::net::SocketAddr::new(self.address, self.port);
        write!(f, "{address} (pid {})", self.pid)
    }
}

/// The verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exposure {
    /// Nobody looked, or not everything could be seen.
    #[default]
    Unknown,
    /// Every socket was declared.
    AsDeclared,
    /// These were not.
    Violated(Vec<Socket>),
}

impl Exposure {
    /// The word of status and events.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Exposure::Unknown => "unknown",
            Exposure::AsDeclared => "as-declared",
            Exposure::Violated(_) => "violated",
        }
    }

    /// The sockets that were not declared.
    #[must_use]
    pub fn sockets(&self) -> &[Socket] {
        match self {
            Exposure::Violated(sockets) => sockets,
            Exposure::Unknown | Exposure::AsDeclared => &[],
        }
    }
}

/// Compares. `complete`: every process of the module could be looked at.
#[must_use]
pub fn judge(declared: &[Declared], seen: &[Socket], complete: bool) -> Exposure {
    let allowed = |socket: &&Socket| {
        let local = socket.address.to_canonical().is_loopback();
        let port = declared.iter().find(|d| d.port == socket.port);
        port.is_some_and(|port| local || port.lan)
    };
    let mut wrong: Vec<Socket> = seen.iter().filter(|s| !allowed(s)).cloned().collect();
    wrong.sort();
    match (wrong.is_empty(), complete) {
        (false, _) => Exposure::Violated(wrong),
        (true, true) => Exposure::AsDeclared,
        (true, false) => Exposure::Unknown,
    }
}

#[cfg(test)]
mod test {
    use super::{Declared, Exposure, Socket, judge};

    fn seen(address: &str, port: u16) -> Socket {
        Socket {
            address: address.parse().expect("an address"),
            port,
            pid: 7,
        }
    }

    const API: Declared = Declared {
        port: 80,
        lan: false,
    };
    const OPEN: Declared = Declared {
        port: 81,
        lan: true,
    };

    #[test]
    fn a_socket_is_as_declared_by_its_port_and_its_address() {
        let ports = [API, OPEN];
        for good in [
            seen("127.0.0.1", 80),
            seen("::1", 80),
            seen("::ffff:127.0.0.1", 80),
            seen("127.8.8.8", 81),
            seen("0.0.0.0", 81),
            seen("::", 81),
        ] {
            assert_eq!(
                judge(&ports, std::slice::from_ref(&good), true),
                Exposure::AsDeclared,
                "{good}"
            );
        }
        for bad in [
            seen("0.0.0.0", 80),
            seen("::", 80),
            seen("192.168.0.1", 80),
            seen("127.0.0.1", 82),
            seen("0.0.0.0", 82),
        ] {
            let verdict = judge(&ports, &[bad.clone(), seen("127.0.0.1", 80)], true);
            assert_eq!(verdict, Exposure::Violated(vec![bad]));
        }
    }

    #[test]
    fn what_was_not_seen_is_unknown_and_what_was_seen_stays_seen() {
        assert_eq!(judge(&[API], &[], true), Exposure::AsDeclared);
        assert_eq!(judge(&[API], &[], false), Exposure::Unknown);
        let bad = seen("0.0.0.0", 80);
        assert_eq!(
            judge(&[API], std::slice::from_ref(&bad), false),
            Exposure::Violated(vec![bad])
        );
    }
}
