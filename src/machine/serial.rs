//! The first serial port: a 16550A with its interrupt on GSI 4, and where its bytes go.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_superio::serial::SerialEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::MachineError;
use super::bus::BusDevice;
use super::exit::ExitLatch;
use super::layout::SERIAL_GSI;
use crate::kvm::VmIoctls;

/// What the serial port is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Console {
    /// Standard input and output.
    Stdio,
    /// Output to a file, made or cut to nothing; no input.
    File(PathBuf),
    /// Nothing: output is dropped, no input.
    Off,
}

/// The interrupt line: an edge by `KVM_IRQ_LINE`, up and down.
struct Line(Arc<dyn VmIoctls>);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.irq_line(SERIAL_GSI, true)?;
        self.0.irq_line(SERIAL_GSI, false)
    }
}

/// Tells the main loop that the receive FIFO has room again.
struct Room(Arc<EventFd>);

impl SerialEvents for Room {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {
        let _ = self.0.write(1);
    }
}

/// Output that waits for a slow reader, but not beyond the end of the run.
struct Patient {
    to: Box<dyn Write + Send>,
    exit: ExitLatch,
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.to.write(bytes) {
            // The kick that stops the vCPUs interrupts the write; what it did not take is lost with the guest.
            Err(e) if e.kind() == io::ErrorKind::Interrupted && self.exit.reason().is_some() => {
                Ok(bytes.len())
            }
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Standard output without Rust's buffer, which would go on after an interrupted write by itself.
fn own_stdout() -> Result<File, MachineError> {
    let fd = io::stdout().as_fd().try_clone_to_owned();
    fd.map(File::from).map_err(|e| MachineError::Host(format!("standard output cannot be used: {e}")))
}

/// The port as a bus device.
pub struct SerialPort {
    uart: Mutex<Serial<Line, Room, Patient>>,
    room: Arc<EventFd>,
}

impl SerialPort {
    /// A port on `vm` that prints to `console`.
    ///
    /// # Errors
    /// The console's file cannot be made.
    pub fn new(
        vm: Arc<dyn VmIoctls>,
        console: &Console,
        exit: ExitLatch,
    ) -> Result<Arc<SerialPort>, MachineError> {
        let to: Box<dyn Write + Send> = match console {
            Console::Stdio => Box::new(own_stdout()?),
            Console::File(path) => {
                Box::new(File::create(path).map_err(|e| MachineError::file("console", path, e))?)
            }
            Console::Off => Box::new(io::sink()),
        };
        let room =
            EventFd::new(EFD_NONBLOCK).map_err(|e| MachineError::Host(format!("eventfd failed: {e}")))?;
        let room = Arc::new(room);
        let uart = Serial::with_events(Line(vm), Room(room.clone()), Patient { to, exit });
        Ok(Arc::new(SerialPort { uart: Mutex::new(uart), room }))
    }

    fn uart(&self) -> MutexGuard<'_, Serial<Line, Room, Patient>> {
        self.uart.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Readable when the guest has emptied the receive FIFO.
    pub fn room(&self) -> &EventFd {
        &self.room
    }

    /// Gives the guest as many of `bytes` as the receive FIFO takes now; answers how many.
    pub fn receive(&self, bytes: &[u8]) -> usize {
        // FullFifo, or an interrupt that failed after the bytes were queued, which `fifo_capacity` then shows.
        let mut uart = self.uart();
        let before = uart.fifo_capacity();
        match uart.enqueue_raw_bytes(bytes) {
            Ok(taken) => taken,
            Err(_) => before - uart.fifo_capacity(),
        }
    }
}

impl BusDevice for SerialPort {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let ([byte], Ok(offset)) = (data, u8::try_from(offset)) {
            *byte = self.uart().read(offset);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let (&[byte], Ok(offset)) = (data, u8::try_from(offset)) {
            // A closed output loses the byte; the guest goes on.
            let _ = self.uart().write(offset, byte);
        }
    }
}

#[cfg(test)]
#[path = "serial_tests.rs"]
mod tests;
