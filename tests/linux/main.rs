//! A Linux guest on doorbell: its stock drivers and fio against every path of the dataplane.
//!
//! Runs directly where KVM has hardware behind it, else in the lab (docs/lab.md); `scripts/test machine` finds out.
//! Tests with more than one vCPU are in [`smp`] and its siblings' names contain `smp`: in the lab these run on one CPU.

#[path = "../support/mod.rs"]
mod support;

mod disturb;
mod durable;
mod evidence;
mod guest;
mod pairs;
mod poll_queues;
mod resize;
mod restart;
mod verify;
