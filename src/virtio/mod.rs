//! (room being built)

mod notify_path;

pub use notify_path::NotifyPath;
