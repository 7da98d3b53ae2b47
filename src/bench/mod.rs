//! Plans, guests, results, tables. The built-in guest and the layout it shares with us live here; nothing in this
//! room knows how a device or a machine works inside.

pub mod probe_abi;

/// The probe guest (guest-images/probe), compiled by build.rs: a PVH kernel of a few dozen KiB.
pub static PROBE_ELF: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probe.elf"));

#[cfg(test)]
#[path = "probe_elf_tests.rs"]
mod probe_elf_tests;
