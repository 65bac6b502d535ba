//! `runtime.park` and `runtime.wake`: the requests by which a module lets go of memory and takes it again.
//!
//! Owns: their keys, defaults and bounds. Promises: a request goes to a port that the module itself declares, on
//! 127.0.0.1. Never: sends one.

use crate::decode::{Sink, View};
use crate::numbers::Count;
use crate::problem::ProblemKind;
use crate::record::record;
use crate::runtime::Runtime;
use crate::text::Text;
use crate::units::{DAY, Span};
use crate::words::{PortName, choice};

/// Time for a request and what comes of it.
pub type Within = Span<100, DAY>;

record! {
    /// How it lets go of memory that it can do without.
    pub struct Park {
        /// The request.
        http: Call,
        /// It is answered within this time, or has failed.
        within: Within = Within::millis(60_000),
        /// What becomes of its probes until it is woken.
        probes: WhileParked = WhileParked::GoOn,
    }
}

record! {
    /// How it takes that memory again.
    pub struct Wake {
        /// The request.
        http: Call,
        /// It is answered within this time, or has failed; the module then has what is left of it to serve again.
        within: Within = Within::millis(600_000),
    }
}

choice! {
    /// What becomes of a module's probes while it is parked.
    pub enum WhileParked {
        /// They are asked as ever.
        #[default]
        GoOn = "go_on",
        /// Nobody asks, and its health is unknown.
        Rest = "rest",
    }
}

choice! {
    /// Methods of HTTP.
    pub enum Method {
        /// POST
        #[default]
        Post = "POST",
        /// GET
        Get = "GET",
        /// PUT
        Put = "PUT",
        /// DELETE
        Delete = "DELETE",
    }
}

record! {
    /// A request to 127.0.0.1.
    pub struct Call checked by check_call {
        /// Its method.
        method: Method = Method::Post,
        /// A declared port.
        port: PortName,
        /// Path and query.
        path: Text = Text::plain("/"),
        /// What is sent, as JSON; without it, nothing.
        body: Text = Text::plain(""),
        /// The one status that counts; without it, every 2xx.
        expect: Option<Count<100, 599>> = None,
    }
}

fn check_call(call: &Call, view: View<'_, '_>, sink: &mut Sink) -> Option<()> {
    crate::health::path(&call.path, view, sink)
}

/// What the two have to agree on, with each other and with the ports.
pub(crate) fn check(runtime: &Runtime, view: View<'_, '_>, sink: &mut Sink, no_ports: bool) {
    let (park, wake) = (runtime.park.as_ref(), runtime.wake.as_ref());
    if let (None, Some(_)) = (park, wake) {
        let what = "there is no `park` to be woken from";
        let help = "for example `park: { http: { port: api, path: /sleep } }`";
        view.fault(
            sink,
            ProblemKind::Invalid,
            &["wake"],
            what,
            Some(help.to_owned()),
        );
    }
    if let (Some(park), None) = (park, wake)
        && park.probes == WhileParked::Rest
    {
        let what = "without `wake` nobody would let its probes go on";
        view.fault(sink, ProblemKind::Invalid, &["park", "probes"], what, None);
    }
    let calls = [
        ("park", park.map(|p| &p.http)),
        ("wake", wake.map(|w| &w.http)),
    ];
    for (which, call) in calls {
        if let Some(call) = call
            && !no_ports
            && !runtime.ports.contains_key(&call.port)
        {
            let what = format!("there is no port `{}` in `ports`", call.port);
            let help = Some(crate::check::known_ports(runtime));
            view.fault(
                sink,
                ProblemKind::Invalid,
                &[which, "http", "port"],
                what,
                help,
            );
        }
    }
}
