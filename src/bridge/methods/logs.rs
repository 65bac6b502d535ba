//! `logs.*`.

use super::Registry;

pub(super) fn register(_all: &mut Registry) {}
