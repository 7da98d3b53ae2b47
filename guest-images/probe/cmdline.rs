//! The kernel command line from the PVH start information: `key=value` words. It is copied before anything else is
//! written to low memory.

use crate::{boot, cpu, global::Global};

static TEXT: Global<([u8; 1024], usize)> = Global::new(([0; 1024], 0));

const START_MAGIC: u32 = 0x336e_c578;

/// Copies the command line, if there is one.
pub fn keep() {
    let Some(info) = boot::start_info() else { return };
    if cpu::load::<u32>(info) != START_MAGIC {
        return;
    }
    let from: u64 = cpu::load(info + 24);
    if from == 0 || from >= 1 << 32 {
        return;
    }
    // SAFETY: CPU 0 runs this, before anything reads it.
    let (text, length) = unsafe { &mut *TEXT.get() };
    while *length < text.len() {
        let byte: u8 = cpu::load(from + *length as u64);
        if byte == 0 {
            break;
        }
        text[*length] = byte;
        *length += 1;
    }
}

fn text() -> &'static str {
    // SAFETY: written once by `keep`, before any reader.
    let (text, length) = unsafe { &*TEXT.get() };
    core::str::from_utf8(&text[..*length]).unwrap_or("")
}

/// Returns the value of the last `key=`.
pub fn value(key: &str) -> Option<&'static str> {
    text()
        .split_ascii_whitespace()
        .filter_map(|word| word.split_once('='))
        .rfind(|(k, _)| *k == key)
        .map(|(_, v)| v)
}

fn parse(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Returns a number, decimal or 0x.
pub fn number(key: &str, default: u64) -> u64 {
    value(key).and_then(parse).unwrap_or(default)
}

/// Returns numbers separated by commas, or `default` if there are none.
pub fn numbers(key: &str, default: u64) -> impl Iterator<Item = u64> + Clone {
    let given = value(key).unwrap_or("").split(',').filter_map(parse);
    let missing = if given.clone().next().is_none() { Some(default) } else { None };
    given.chain(missing)
}

/// Returns words separated by commas, each as its number in `table`. Unknown words are left out.
pub fn words(
    key: &str,
    default: &'static str,
    table: &'static [(&'static str, u32)],
) -> impl Iterator<Item = u32> + Clone {
    value(key)
        .unwrap_or(default)
        .split(',')
        .filter_map(move |word| table.iter().find(|(name, _)| *name == word).map(|(_, number)| *number))
}
