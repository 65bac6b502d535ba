//! What systemd and its like are told: READY=1, STOPPING=1, WATCHDOG=1 on `$NOTIFY_SOCKET` (sd_notify(3)).

use crate::RuntimeHandle;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Tells it, if somebody wants to hear it.
pub fn notify(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let sent = address.and_then(|a| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &a));
    if let Err(e) = sent {
        tracing::warn!("cannot notify: {e}");
    }
}

/// Tells a watchdog (sd_watchdog_enabled(3)) that lair works, as long as its root answers. Returns at once where nobody
/// watches.
pub async fn feed_watchdog(handle: RuntimeHandle) {
    let Some(within) = watchdog() else { return };
    loop {
        if handle.ping().await.is_ok() {
            notify("WATCHDOG=1");
        }
        // Three times in each span: one that comes late does no harm.
        let _ = tokio::time::timeout(within / 3, std::future::pending::<()>()).await;
    }
}

/// How long the watchdog of this very process waits.
fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    number("WATCHDOG_USEC")
        .filter(|span| *span > 0)
        .map(Duration::from_micros)
}
