//! Time as the core sees it: durations since the runtime started. No wall clock lives here.

use serde::{Deserialize, Serialize};
use std::ops::{Add, Sub};
use std::time::Duration;

/// Time since the runtime started (monotonic, includes no wall clock).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Uptime(pub Duration);

impl Uptime {
    /// The start of the runtime.
    pub const ZERO: Uptime = Uptime(Duration::ZERO);

    /// How long before `self` the moment `earlier` was; zero if it was later.
    #[must_use]
    pub fn since(self, earlier: Uptime) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Uptime {
    type Output = Uptime;
    fn add(self, by: Duration) -> Uptime {
        Uptime(self.0.saturating_add(by))
    }
}

impl Sub for Uptime {
    type Output = Duration;
    fn sub(self, earlier: Uptime) -> Duration {
        self.since(earlier)
    }
}
