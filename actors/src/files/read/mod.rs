//! Reading logs back: see the parts.
