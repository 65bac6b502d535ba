//! Runs probes and judges what they say. (Placeholder for the types that messages name.)

/// A finished probe.
pub struct ProbeDone;
/// What a timer of the health actor is about.
pub struct Tick;
