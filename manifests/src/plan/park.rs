//! The requests that park and wake a module, with numbers and names in them.
//!
//! Owns: the mapping from what is declared to what is sent. Promises: every request goes to 127.0.0.1.

use super::Planner;
use crate::launch::{Errand, Parking};
use crate::park::{Call, WhileParked};
use std::sync::Arc;
use std::time::Duration;

impl Planner<'_> {
    pub(super) fn parking(&mut self) -> Option<Arc<Parking>> {
        let runtime = &self.module.runtime;
        let park = runtime.park.as_ref()?;
        let wake = runtime.wake.as_ref();
        let wake = wake.map(|w| self.errand(&w.http, w.within.get(), "/runtime/wake/http"));
        let first = self.errand(&park.http, park.within.get(), "/runtime/park/http")?;
        Some(Arc::new(Parking {
            park: first,
            wake: match wake {
                Some(wake) => Some(wake?),
                None => None,
            },
            rests: park.probes == WhileParked::Rest,
        }))
    }

    fn errand(&mut self, call: &Call, within: Duration, place: &str) -> Option<Errand> {
        let path = self.text(&call.path, &format!("{place}/path"));
        let body = self.text(&call.body, &format!("{place}/body"));
        Some(Errand {
            method: call.method.as_str().to_owned(),
            address: "127.0.0.1".to_owned(),
            // Reading has seen to it that it is declared.
            port: self.ports.get(call.port.as_str()).copied()?,
            path: path?,
            body: body?,
            expect: call.expect.and_then(|e| u16::try_from(e.get()).ok()),
            within,
        })
    }
}
