//! Whether a module is started again, and how it is stopped.
//!
//! Owns: `runtime.restart` and `runtime.stop`. Promises: nothing restarts unless the manifest says so; both vocabularies
//! (`on-failure`, `transient`) mean the same. Never: counts restarts; the core does.

use crate::decode::{Decode, Sink, View};
use crate::numbers::{Count, Milli};
use crate::record::record;
use crate::units::{DAY, HOUR, Span};
use crate::words::{Signal, choice};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use std::borrow::Cow;

/// Whether, how often and how fast it is started again; `restart: on-failure` is short for its policy alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Restart(pub LongRestart);

impl Restart {
    /// The default: never.
    #[must_use]
    pub fn never() -> Self {
        Restart(LongRestart {
            policy: RestartPolicy::Never,
            max: Count::of(5),
            within: Span::millis(600_000),
            backoff: Backoff::usual(),
            settle: Span::millis(60_000),
        })
    }
}

choice! {
    /// When a module is started again that ended without being asked to.
    pub enum RestartPolicy {
        /// Never.
        #[default]
        Never = "never" | "temporary",
        /// After a failure.
        OnFailure = "on-failure" | "transient",
        /// After every end.
        Always = "always" | "permanent",
    }
}

record! {
    /// Whether, how often and how fast it is started again.
    pub struct LongRestart {
        /// When.
        policy: RestartPolicy = RestartPolicy::Never,
        /// How often within the window; once more, and it rests as failed.
        max: Count<0, 10_000> = Count::of(5),
        /// The window.
        within: Span<100, { 30 * DAY }> = Span::millis(600_000),
        /// How fast.
        backoff: Backoff = Backoff::usual(),
        /// Ready for this long: earlier failures are forgotten.
        settle: Span<0, DAY> = Span::millis(60_000),
    }
}

record! {
    /// The growing delay before a restart.
    pub struct Backoff checked by crate::check::backoff {
        /// Before the first restart in a row.
        first: Span<0, DAY> = Span::millis(1000),
        /// Growth for each failure in a row.
        factor: Milli<1000, 100_000> = Milli::thousandths(2000),
        /// The longest delay.
        cap: Span<0, DAY> = Span::millis(60_000),
        /// Part of the delay that is random.
        jitter: Milli<0, 1000> = Milli::thousandths(100),
    }
}

impl Backoff {
    fn usual() -> Self {
        Backoff {
            first: Span::millis(1000),
            factor: Milli::thousandths(2000),
            cap: Span::millis(60_000),
            jitter: Milli::thousandths(100),
        }
    }
}

impl Decode for Restart {
    fn decode(view: View<'_, '_>, sink: &mut Sink) -> Option<Self> {
        if view.is_scalar() && !view.node.is_null() {
            let policy = RestartPolicy::decode(view, sink)?;
            return Some(Restart(LongRestart {
                policy,
                ..Restart::never().0
            }));
        }
        LongRestart::decode(view, sink).map(Restart)
    }
}

impl JsonSchema for Restart {
    fn schema_name() -> Cow<'static, str> {
        "Restart".into()
    }

    fn json_schema(g: &mut SchemaGenerator) -> Schema {
        let (short, long) = (
            RestartPolicy::json_schema(g),
            g.subschema_for::<LongRestart>(),
        );
        json_schema!({ "oneOf": [short, long] })
    }
}

record! {
    /// How it is stopped.
    pub struct Stop {
        /// The signal that asks it to.
        signal: Signal = Signal::TERM,
        /// Time between that signal and KILL.
        grace: Span<100, HOUR> = Span::millis(10_000),
    }
}

impl Stop {
    pub(crate) fn usual() -> Self {
        Stop {
            signal: Signal::TERM,
            grace: Span::millis(10_000),
        }
    }
}
