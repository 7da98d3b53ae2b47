//! Masks and moves a block's own interrupt while requests are in flight.

use crate::abi::*;
use crate::pci::{self, Function};
use crate::{cpu, msix};

pub struct Torture {
    info: DeviceInfo,
    intx: bool,
    /// MSI-X entry of the queue.
    entry: u32,
    mask_every: u32,
    route_every: u32,
    live: bool,
    hold: u64,
    /// The two places of the interrupt: (vector, APIC ID), the normal one first.
    homes: [(u32, u32); 2],
    kicks: u32,
    masked: bool,
    pub masks: u64,
    pub routes: u64,
}

impl Torture {
    /// Returns None if moving is impossible (INTx, or HLT on a CPU that the interrupt leaves).
    pub fn new(job: &GuestJob, info: &DeviceInfo, vector: u32) -> Option<Self> {
        let intx = (vector::INTX..vector::END).contains(&vector);
        let away = job.cpu2 != job.cpu;
        if job.route_every != 0 && (intx || job.vector2 > 255 || (job.wait == wait::HALT && away)) {
            return None;
        }
        let vector2 = if job.vector2 == 0 { vector } else { job.vector2 };
        Some(Self {
            info: *info,
            intx,
            entry: job.queue + 1,
            mask_every: job.mask_every,
            route_every: job.route_every,
            live: job.flags & flag::ROUTE_LIVE != 0,
            hold: job.hold,
            homes: [(vector, job.cpu), (vector2, job.cpu2)],
            kicks: 0,
            masked: false,
            masks: 0,
            routes: 0,
        })
    }

    fn set_mask(&self, masked: bool) {
        match (self.intx, masked) {
            (false, _) => msix::set_mask(&self.info, self.entry, masked),
            (true, true) => Function(self.info.bdf as u16).command(pci::COMMAND_INTX_OFF, 0),
            (true, false) => Function(self.info.bdf as u16).command(0, pci::COMMAND_INTX_OFF),
        }
    }

    #[inline(always)]
    pub fn before_kick(&mut self) {
        if self.mask_every | self.route_every == 0 {
            return;
        }
        self.kicks += 1;
        if self.route_every != 0 && self.kicks % self.route_every == 0 {
            self.routes += 1;
            self.move_to(self.homes[(self.routes % 2) as usize]);
        }
        if self.mask_every != 0 && self.kicks % self.mask_every == 0 {
            self.set_mask(true);
            self.masked = true;
            self.masks += 1;
        }
    }

    /// Unmasks after `hold`. Requests that were kicked complete meanwhile, so the pending bit must be used.
    #[inline(always)]
    pub fn after_kick(&mut self) {
        if self.masked {
            cpu::delay(self.hold);
            self.set_mask(false);
            self.masked = false;
        }
    }

    fn move_to(&self, (vector, cpu): (u32, u32)) {
        if self.live {
            msix::write_vector_live(&self.info, self.entry, vector);
        } else {
            msix::write(&self.info, self.entry, vector, cpu);
            msix::set_mask(&self.info, self.entry, false);
        }
    }

    /// Moves the vector back to its first place.
    pub fn restore(&mut self) {
        if self.routes % 2 == 1 {
            self.move_to(self.homes[0]);
        }
    }
}
