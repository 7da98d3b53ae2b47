//! What the machine tests share: where they can run, a Linux guest with a job, its disks, and how its results come back.
//!
//! What may not be here: an assertion about doorbell that only one test makes.
#![allow(dead_code)] // each test program uses some of it

pub mod disks;
pub mod ground;
pub mod guest;
pub mod stats;
