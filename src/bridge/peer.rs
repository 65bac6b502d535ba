//! Who may speak: decided by the kernel's word about the other end, never by its own.

use rustix::process::{geteuid, getuid};
use tokio::net::UnixStream;

/// Who may use a bridge besides this process's own user and root.
#[derive(Clone, Debug, Default)]
pub struct PeerPolicy {
    /// User ids (`access.uids`).
    pub uids: Vec<u32>,
    /// Primary group ids (`access.gids`); supplementary groups don't count.
    pub gids: Vec<u32>,
}

/// The process at the other end, as it was when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Process id: a label, never an authority.
    pub pid: Option<i32>,
}

impl Peer {
    /// What the kernel says about the other end; `None` if it says nothing.
    #[must_use]
    pub fn of(stream: &UnixStream) -> Option<Peer> {
        let cred = stream.peer_cred().ok()?;
        Some(Peer {
            uid: cred.uid(),
            gid: cred.gid(),
            pid: cred.pid(),
        })
    }

    /// How it is named in events and logs.
    #[must_use]
    pub fn label(&self) -> String {
        format!("uid {}", self.uid)
    }
}

impl PeerPolicy {
    /// May this peer speak? No information means no.
    #[must_use]
    pub fn admits(&self, peer: Option<Peer>) -> bool {
        let Some(peer) = peer else { return false };
        let ours = [0, getuid().as_raw(), geteuid().as_raw()];
        ours.contains(&peer.uid) || self.uids.contains(&peer.uid) || self.gids.contains(&peer.gid)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_peer_the_kernel_says_nothing_about_is_refused() {
        let policy = PeerPolicy {
            uids: vec![7],
            gids: vec![8],
        };
        let peer = |uid, gid| {
            Some(Peer {
                uid,
                gid,
                pid: None,
            })
        };
        assert!(!policy.admits(None));
        assert!(policy.admits(peer(0, 99)));
        assert!(policy.admits(peer(7, 99)));
        assert!(policy.admits(peer(65_534, 8)));
        assert!(!policy.admits(peer(65_534, 65_534)));
        assert!(!PeerPolicy::default().admits(peer(65_534, 0)));
    }
}
