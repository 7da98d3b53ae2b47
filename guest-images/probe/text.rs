//! Prints lines to one port, for people and for hosts that cannot read guest memory.

use crate::abi::{CONTROL, Control};
use crate::cpu;
use core::fmt::{self, Write};
use core::mem::offset_of;

/// A line buffer. It is written in one piece, when it is full or dropped.
pub struct Line {
    port: u16,
    length: usize,
    bytes: [u8; 1024],
}

impl Line {
    pub fn new() -> Self {
        let port: u32 = cpu::load(CONTROL + offset_of!(Control, text_port) as u64);
        Self { port: port as u16, length: 0, bytes: [0; 1024] }
    }

    fn flush(&mut self) {
        if self.port != 0 && self.length > 0 {
            cpu::out_text(self.port, &self.bytes[..self.length]);
        }
        self.length = 0;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.length == self.bytes.len() {
                self.flush();
            }
            self.bytes[self.length] = byte;
            self.length += 1;
        }
        Ok(())
    }
}

/// Prints one line.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => {{
        use core::fmt::Write;
        let mut line = $crate::text::Line::new();
        // Writing to a Line never fails.
        let _ = writeln!(line, $($arg)*);
    }};
}
