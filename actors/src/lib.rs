//! What touches the world: lair's actors, backends, keeper, logs and probes.

pub mod files;
pub mod pump;
