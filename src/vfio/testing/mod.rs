//! Helpers of this room's tests: a fake device, and a fake `/sys` of a host.

pub mod device;
pub mod host_tree;
