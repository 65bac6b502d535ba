//! TCP: an accepted connection is success.

use super::{Finding, connect_failed};
use lair_supervision::ProbeOutcome;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::TcpStream;

pub(super) fn name(address: &str, port: u16) -> String {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("connecting to [{address}]:{port}"),
        Ok(IpAddr::V4(_)) | Err(_) => format!("connecting to {address}:{port}"),
    }
}

pub(super) async fn connect(address: &str, port: u16) -> Finding {
    let asked = name(address, port);
    let Some(target) = target(address, port) else {
        let said = format!("{asked} needs a numeric address");
        return Finding::new(ProbeOutcome::CouldNotRun, said);
    };
    match TcpStream::connect(target).await {
        Ok(_) => Finding::new(ProbeOutcome::Success, format!("{asked} succeeded")),
        Err(error) => connect_failed(&asked, &error),
    }
}

/// A module that serves on all addresses is asked on the loopback one.
pub(super) fn target(address: &str, port: u16) -> Option<SocketAddr> {
    let address = match address.parse().ok()? {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    Some(SocketAddr::new(address, port))
}
