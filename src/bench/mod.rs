//! Schedules, guests, results, tables.
//!
//! What lives here: the benches, the built-in guest, and the memory layout that it shares with the host. What may not:
//! the implementation of a device or a machine.
//!
//! One bench, two guests: `schedule` fixes what is compared and in which order, `probe` or `linux` measures it, `report`
//! holds the results (docs/results.md), `table` and `html` show them, `diff` compares two.

mod buckets;
mod checks;
mod counts;
mod diff;
mod html;
mod json;
pub mod linux;
mod memfile;
mod noise;
pub mod pace;
mod paired;
mod peer_process;
pub mod probe;
pub mod probe_abi;
pub mod progress;
mod ratios;
mod report;
mod row_name;
mod schedule;
mod table;
#[cfg(test)]
pub(crate) mod testing;
mod unpaired;
mod verdict;

pub use buckets::Buckets;
pub use counts::DiskCounts;
pub use diff::{DIFF_SCHEMA, Diff, ManyRow, ReadError, compare_many, read_report, render_diff, render_many};
pub use html::render_html;
pub use json::to_json;
pub use memfile::MemFile;
pub use ratios::fill_ratios;
pub use report::{Report, Row, RunFacts, SCHEMA, per_request};
pub use schedule::{PathPair, PathPairName, Schedule, Step};
pub use table::{Look, render};
pub use verdict::tells_apart;

/// The probe guest (guest-images/probe), compiled by build.rs: a PVH kernel of about 120 KiB.
pub static PROBE_ELF: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probe.elf"));

#[cfg(test)]
#[path = "probe_elf_tests.rs"]
mod probe_elf_tests;
