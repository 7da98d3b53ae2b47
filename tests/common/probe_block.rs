//! A block of the probe guest, as its text mode prints it.

use serde_json::Value;

/// The block did all its requests, exactly once, without a wrong byte.
#[track_caller]
pub fn assert_block(what: &str, block: &Value, requests: u64) {
    for (key, want) in [
        ("status", 0),
        ("requests", requests),
        ("data_errors", 0),
        ("io_errors", 0),
        ("duplicates", 0),
        ("unknown", 0),
    ] {
        assert_eq!(block[key], want, "{what}: {key} in {block}");
    }
}
