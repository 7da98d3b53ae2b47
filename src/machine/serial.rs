//! The first serial port: a 16550A with its interrupt on GSI 4, and the console it is connected to.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use vm_superio::serial::SerialEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::MachineError;
use super::bus::BusDevice;
use super::console_output::ConsoleOutput;
use super::exit::ExitLatch;
use super::layout::SERIAL_GSI;
use crate::host::Locked;
use crate::kvm::VmIoctls;

/// The console of the serial port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Console {
    /// Standard input and output.
    Stdio,
    /// Output to a file, which is created or truncated. No input.
    File(PathBuf),
    /// Output is dropped. No input.
    Off,
}

/// The interrupt pin. An interrupt is an edge: two calls of `KVM_IRQ_LINE`, up and down.
struct SerialPin(Arc<dyn VmIoctls>);

impl Trigger for SerialPin {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.irq_line(SERIAL_GSI, true)?;
        self.0.irq_line(SERIAL_GSI, false)
    }
}

/// Signals the main loop when the receive FIFO has room again.
struct Room(Arc<EventFd>);

impl SerialEvents for Room {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {
        let _ = self.0.write(1);
    }
}

/// The output for the UART, if there is any. It takes every byte at once.
struct Sink(Option<Arc<ConsoleOutput>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(output) = &self.0 {
            output.push(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Creates or truncates the console's file, or goes on at its end. A FIFO must have a reader: without one, opening it would
/// wait forever.
fn open(path: &Path, go_on: bool) -> Result<File, MachineError> {
    let mut options = File::options();
    options
        .write(true)
        .append(go_on)
        .create(true)
        .truncate(!go_on)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(path).map_err(|e| match e.raw_os_error() {
        Some(libc::ENXIO) => {
            MachineError::file("console", path, "nobody reads from this FIFO: start its reader first")
        }
        _ => MachineError::file("console", path, e),
    })
}

/// The serial port as a bus device.
pub struct SerialPort {
    uart: Mutex<Serial<SerialPin, Room, Sink>>,
    room: Arc<EventFd>,
    output: Option<Arc<ConsoleOutput>>,
}

impl SerialPort {
    /// Creates a port on `vm` that is connected to `console`; `go_on`: at the end of its file.
    ///
    /// # Errors
    /// The console's file cannot be created or opened.
    pub fn new(
        vm: Arc<dyn VmIoctls>,
        console: &Console,
        go_on: bool,
        exit: ExitLatch,
    ) -> Result<Arc<SerialPort>, MachineError> {
        let fail = |e| MachineError::Host(format!("the console's output cannot be used: {e}"));
        let output = match console {
            Console::Stdio => Some(ConsoleOutput::new(io::stdout().as_fd(), exit).map_err(fail)?),
            Console::File(path) => Some(ConsoleOutput::new(open(path, go_on)?.as_fd(), exit).map_err(fail)?),
            Console::Off => None,
        };
        let room =
            EventFd::new(EFD_NONBLOCK).map_err(|e| MachineError::Host(format!("eventfd failed: {e}")))?;
        let room = Arc::new(room);
        let uart = Serial::with_events(SerialPin(vm), Room(room.clone()), Sink(output.clone()));
        Ok(Arc::new(SerialPort { uart: Mutex::new(uart), room, output }))
    }

    fn uart(&self) -> MutexGuard<'_, Serial<SerialPin, Room, Sink>> {
        self.uart.locked()
    }

    /// Returns the output, unless the console is off.
    pub fn output(&self) -> Option<&Arc<ConsoleOutput>> {
        self.output.as_ref()
    }

    /// Returns an eventfd that is readable when the guest has emptied the receive FIFO.
    pub fn room(&self) -> &EventFd {
        &self.room
    }

    /// Gives the guest as many of `bytes` as the receive FIFO takes now. Returns how many.
    pub fn receive(&self, bytes: &[u8]) -> usize {
        // It fails with FullFifo, or if the interrupt failed after the bytes were queued. `fifo_capacity` shows which.
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
            let _ = self.uart().write(offset, byte);
            if let Some(output) = &self.output {
                output.flush_or_wait();
            }
        }
    }
}

#[cfg(test)]
#[path = "serial_tests.rs"]
mod tests;
