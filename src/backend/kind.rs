use std::fmt;
use std::str::FromStr;

/// What moves the bytes of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    /// The file, through the I/O thread's io_uring: many requests in flight, submitted with the thread's next wait.
    IoUring,
    /// The file, by `preadv2` and `pwritev2` in the thread that owns the queue: one request at a time.
    Sync,
    /// Nothing: every request succeeds at once. What a read leaves in the guest's buffers is what was there.
    Null,
    /// Anonymous memory of the VMM, gone when it ends.
    Mem,
}

impl BackendKind {
    /// Every backend by its name on the command line.
    pub const NAMES: [(&'static str, BackendKind); 4] = [
        ("io_uring", BackendKind::IoUring),
        ("sync", BackendKind::Sync),
        ("null", BackendKind::Null),
        ("mem", BackendKind::Mem),
    ];

    /// Whether requests go to a file or block device (and so need a path, and may be `direct`).
    pub fn uses_file(self) -> bool {
        matches!(self, BackendKind::IoUring | BackendKind::Sync)
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = BackendKind::NAMES.iter().find(|(_, kind)| kind == self);
        f.write_str(found.map_or("?", |(name, _)| name))
    }
}

impl FromStr for BackendKind {
    type Err = ();

    fn from_str(s: &str) -> Result<BackendKind, ()> {
        BackendKind::NAMES.iter().find(|(name, _)| *name == s).map(|&(_, kind)| kind).ok_or(())
    }
}
