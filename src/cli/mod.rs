//! (room being built)

pub mod disk;
