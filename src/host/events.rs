//! The log of the control plane: what sets the notifications up, with time and thread.
//!
//! Features, BARs, ioeventfds, MSI-X entries, routes, irqfds, queues that start and stop, resets. Rooms above write events with
//! [`tracing::info`]; without a log, one is a load and a branch. Nothing that a request does writes an event.

use std::fmt;
use std::io::{self, Write};
use std::sync::Mutex;
use std::time::Instant;

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use super::log;

/// A guest causes events, and must not fill a disk.
const MOST_BYTES: u64 = 64 << 20;

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, strum::EnumString, strum::VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub enum Format {
    /// A line per event.
    #[default]
    Text,
    /// A JSON object per line.
    Json,
}

/// A number as hexadecimal digits.
pub fn hex(number: impl fmt::LowerHex) -> tracing::field::DisplayValue<Hex<impl fmt::LowerHex>> {
    tracing::field::display(Hex(number))
}

/// See [`hex`].
pub struct Hex<T>(T);

impl<T: fmt::LowerHex> fmt::Display for Hex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Writes the events of this process to `out` from now on; times count from here. Has no effect the second time.
pub fn start(out: impl Write + Send + 'static, format: Format) {
    let out = Mutex::new(Bounded { out, left: MOST_BYTES });
    let log =
        tracing_subscriber::fmt().with_writer(out).with_timer(Since(Instant::now())).with_thread_names(true);
    let log = log.with_ansi(false).with_level(false);
    let _ = match format {
        Format::Text => tracing::subscriber::set_global_default(log.finish()),
        Format::Json => tracing::subscriber::set_global_default(log.json().flatten_event(true).finish()),
    };
}

/// Seconds since then, to the microsecond.
struct Since(Instant);

impl FormatTime for Since {
    fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
        write!(out, "{:.6}", self.0.elapsed().as_secs_f64())
    }
}

/// Standard error, through [`log`]: a reader that is slow loses lines and delays nobody.
#[derive(Debug)]
pub struct StandardError;

impl Write for StandardError {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        log::say(format_args!("{}", String::from_utf8_lossy(line)));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes so many bytes, then one line that says so, then nothing.
struct Bounded<W> {
    out: W,
    left: u64,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let len = line.len() as u64;
        if self.left >= len {
            self.left -= len;
            self.out.write_all(line)?;
        } else if self.left > 0 {
            self.left = 0;
            log::warn(
                "log",
                format_args!("it is full ({} MiB); no further event is written", MOST_BYTES >> 20),
            );
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_full_takes_no_more() {
        let mut log = Bounded { out: Vec::new(), left: 10 };
        for line in [&b"1234567\n"[..], b"too long\n", b"1\n"] {
            assert_eq!(log.write(line).unwrap(), line.len());
        }
        assert_eq!(log.out, b"1234567\n");
    }

    #[test]
    fn numbers_are_hexadecimal() {
        assert_eq!(format!("{}", Hex(0xfee0_0000u64)), "0xfee00000");
    }
}
