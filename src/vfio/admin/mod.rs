//! Administration of the host: find a device, bind it to vfio-pci, inspect it.
//!
//! What lives here: `/sys` as it describes devices, groups and drivers. What may not: a guest.

pub mod bind;
pub mod host;
pub mod in_use;
pub mod inspect;
pub mod irq_test;
