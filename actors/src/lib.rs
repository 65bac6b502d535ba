//! What touches the world: lair's actors, backends and keeper.
pub mod keeper;
