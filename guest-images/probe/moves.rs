//! Moves a device's first BAR while its driver is active, and lets the driver follow.

use crate::device;
use crate::pci::{self, Function};
use crate::queue::Queue;

/// The distance of a move. Both places are in the VMM's window for memory BARs; doorbell's is from 3 GiB to 3.5 GiB.
const DISTANCE: u64 = 0x1000_0000;
const BAR_0: u16 = 0x10;

/// Moves the BAR, and updates the driver's addresses. Returns false if the device has no memory BAR there, or if it did
/// not move.
pub fn move_bar(index: u32) -> bool {
    let Some(mut info) = device::info(index) else { return false };
    let function = Function(info.bdf as u16);
    let low = function.read(BAR_0);
    let (from, to) = ((low & !15) as u64, (low & !15) as u64 ^ DISTANCE);
    if low & 1 == 1 || from == 0 {
        return false;
    }
    // Decoding is off meanwhile, as the specification requires (PCI Local Bus 3.0, 6.2.5.1).
    function.command(0, pci::COMMAND_MEMORY);
    let size = pci::size(function, BAR_0, !15) as u64;
    function.write(BAR_0, to as u32);
    function.command(pci::COMMAND_MEMORY, 0);
    let moved = |address: u64| if address.wrapping_sub(from) < size { address ^ DISTANCE } else { address };
    for address in [&mut info.common, &mut info.isr, &mut info.config, &mut info.msix_table] {
        *address = moved(*address);
    }
    if info.notify_is_port == 0 {
        info.notify = moved(info.notify);
        for queue in 0..info.queues {
            let queue = Queue::get(index, queue);
            queue.notify = moved(queue.notify);
        }
    }
    device::update(index, &info);
    function.read(BAR_0) & !15 == to as u32
}
