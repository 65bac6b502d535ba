//! Placeholder until the pump lands.

/// Counters of one run's log.
#[derive(Debug, Default)]
pub struct StreamStats;
