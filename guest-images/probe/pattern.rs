//! The pattern of written data: each 8-byte word encodes its sector, its position in the sector, and a seed.

use crate::cpu::{load, store};

fn word(seed: u64, sector: u64, index: u64) -> u64 {
    // splitmix64 of a counter that is different for each word.
    let mut x = seed ^ (sector << 6 | index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ x >> 27
}

/// Fills `length` bytes at `at` with the pattern of the sectors from `sector`.
pub fn fill(at: u64, length: u64, seed: u64, sector: u64) {
    for i in 0..length / 8 {
        store(at + 8 * i, word(seed, sector + i / 64, i % 64));
    }
}

/// Overwrites memory with bytes that occur in no pattern, so that missing data is detected.
pub fn poison(at: u64, length: u64) {
    for i in 0..length / 8 {
        store(at + 8 * i, 0xdead_beef_0bad_f00du64);
    }
}

/// Returns the number of bytes that differ from the pattern.
pub fn wrong_bytes(at: u64, length: u64, seed: u64, sector: u64) -> u64 {
    (0..length / 8)
        .map(|i| load::<u64>(at + 8 * i) ^ word(seed, sector + i / 64, i % 64))
        .filter(|difference| *difference != 0)
        .map(|difference| difference.to_le_bytes().iter().filter(|b| **b != 0).count() as u64)
        .sum()
}
