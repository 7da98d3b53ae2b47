//! A fake VFIO device: config space, BARs as plain memory, and interrupts by the kernel's rules.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard};

use vfio_bindings::bindings::vfio::{VFIO_IRQ_INFO_EVENTFD, VFIO_IRQ_INFO_NORESIZE};

use crate::vfio::kernel::device_fd::{DeviceFd, IrqIndex, IrqInfo, Mapping};
use crate::vfio::kernel::region::{Area, Region};

/// One `VFIO_DEVICE_SET_IRQS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// The first vector, and for each one whether it got an eventfd.
    Set(IrqIndex, u32, Vec<bool>),
    Disable(IrqIndex),
    UnmaskBy,
}

#[derive(Debug, Default)]
struct State {
    config: Vec<u8>,
    calls: Vec<Call>,
    bound: BTreeMap<(u8, u32), RawFd>,
    /// The index that is on, and its vectors.
    on: Option<(IrqIndex, u32)>,
    stores: Vec<(u32, u64, Vec<u8>)>,
    resets: u32,
}

#[derive(Debug)]
pub struct FakeFd {
    regions: Vec<Region>,
    irqs: [IrqInfo; 5],
    memory: OwnedFd,
    unmappable: bool,
    /// How many vectors the host can give it.
    available: u32,
    state: Mutex<State>,
}

impl FakeFd {
    /// A device with these BARs (size, type bits) and interrupts (INTx, MSI, MSI-X), and 4 KiB of config space.
    /// `resizable`: MSI-X vectors can be added later.
    pub fn new(bars: [(u64, u32); 6], counts: [u32; 3], resizable: bool) -> FakeFd {
        let region = |(index, size, flags): (u32, u64, u32)| {
            let areas = if flags & 4 != 0 { vec![Area { offset: 0, len: size }] } else { Vec::new() };
            Region { index, size, flags, areas, ..Region::default() }
        };
        let mut config = vec![0; 4096];
        let mut regions = Vec::new();
        for (index, (size, kind)) in (0..).zip(bars) {
            regions.push(region((index, size, if size >= 4096 && kind & 1 == 0 { 7 } else { 3 })));
            config[0x10 + 4 * index as usize] = kind as u8;
        }
        regions.extend([(6, 0, 0), (7, 4096, 3), (8, 0, 0)].map(region));
        let noresize = if resizable { 0 } else { VFIO_IRQ_INFO_NORESIZE };
        let irq = |count, flags| IrqInfo { flags: VFIO_IRQ_INFO_EVENTFD | flags, count };
        let [intx, msi, msix] = counts;
        let irqs =
            [irq(intx, 6), irq(msi, VFIO_IRQ_INFO_NORESIZE), irq(msix, noresize), irq(1, 8), irq(1, 8)];
        // SAFETY: a new descriptor, checked by the mappings that are made of it.
        let memory = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"fake".as_ptr(), libc::MFD_CLOEXEC)) };
        // SAFETY: as above.
        assert_eq!(unsafe { libc::ftruncate(memory.as_raw_fd(), 1 << 20) }, 0);
        FakeFd {
            regions,
            irqs,
            memory,
            unmappable: false,
            available: u32::MAX,
            state: Mutex::new(State { config, ..State::default() }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn with_config(self, at: usize, bytes: &[u8]) -> FakeFd {
        self.lock().config[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// A kernel that names areas and then does not map them.
    pub fn unmappable(self) -> FakeFd {
        FakeFd { unmappable: true, ..self }
    }

    /// A host that can give it only this many vectors.
    pub fn with_available(self, available: u32) -> FakeFd {
        FakeFd { available, ..self }
    }

    pub fn config(&self, at: usize) -> u8 {
        self.lock().config[at]
    }

    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.lock().calls)
    }

    /// Stores to BARs so far.
    pub fn take_stores(&self) -> Vec<(u32, u64, Vec<u8>)> {
        std::mem::take(&mut self.lock().stores)
    }

    pub fn resets(&self) -> u32 {
        self.lock().resets
    }

    /// The device fires; `false`: no eventfd is bound.
    pub fn fire(&self, index: IrqIndex, vector: u32) -> bool {
        let Some(fd) = self.lock().bound.get(&(index as u8, vector)).copied() else { return false };
        let one = 1u64;
        // SAFETY: writes 8 bytes from a u64; eventfds under test are alive while they are bound.
        unsafe { libc::write(fd, (&raw const one).cast(), 8) == 8 }
    }
}

impl DeviceFd for FakeFd {
    fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn irq_info(&self, index: IrqIndex) -> IrqInfo {
        self.irqs[index as usize]
    }

    fn can_reset(&self) -> bool {
        true
    }

    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let state = self.lock();
        let at = offset as usize;
        match region {
            7 => data
                .copy_from_slice(state.config.get(at..at + data.len()).ok_or(io::ErrorKind::UnexpectedEof)?),
            _ => data.fill(0xb0 + region as u8),
        }
        Ok(())
    }

    fn write(&self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        let at = offset as usize;
        match region {
            7 => {
                let place = state.config.get_mut(at..at + data.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
                place.copy_from_slice(data);
            }
            _ => state.stores.push((region, offset, data.to_vec())),
        }
        Ok(())
    }

    fn map(&self, _region: u32, area: Area) -> io::Result<Mapping> {
        if self.unmappable {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        Mapping::new(self.memory.as_raw_fd(), area.offset, area.len, libc::PROT_READ | libc::PROT_WRITE)
    }

    /// As drivers/vfio/pci/vfio_pci_intrs.c: one kind at a time, and no growth where it is not allowed.
    fn set_eventfds(&self, index: IrqIndex, start: u32, fds: &[RawFd]) -> io::Result<Option<u32>> {
        let mut state = self.lock();
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        let end = start + fds.len() as u32;
        let info = self.irqs[index as usize];
        match state.on {
            _ if end > info.count || fds.is_empty() => return Err(invalid()),
            // Each of these two is on beside the others.
            _ if matches!(index, IrqIndex::Error | IrqIndex::Request) => {}
            Some((on, _)) if on != index => return Err(invalid()),
            Some((_, vectors)) if end > vectors && info.flags & VFIO_IRQ_INFO_NORESIZE != 0 => {
                return Err(invalid());
            }
            Some(_) => {}
            // pci_alloc_irq_vectors: all that are asked for, or the caller hears how many there are.
            None if end > self.available => return Ok(Some(self.available)),
            None => state.on = Some((index, end)),
        }
        for (vector, &fd) in (start..).zip(fds) {
            state.bound.remove(&(index as u8, vector));
            if fd >= 0 {
                state.bound.insert((index as u8, vector), fd);
            }
        }
        state.calls.push(Call::Set(index, start, fds.iter().map(|fd| *fd >= 0).collect()));
        Ok(None)
    }

    fn disable(&self, index: IrqIndex) -> io::Result<()> {
        let mut state = self.lock();
        if state.on.is_some_and(|(on, _)| on == index) {
            state.on = None;
        }
        state.bound.retain(|(i, _), _| *i != index as u8);
        state.calls.push(Call::Disable(index));
        Ok(())
    }

    fn trigger(&self, index: IrqIndex, vector: u32) -> io::Result<()> {
        if self.fire(index, vector) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EINVAL)) }
    }

    fn unmask_intx_by(&self, _fd: RawFd) -> io::Result<()> {
        let mut state = self.lock();
        if state.on != Some((IrqIndex::Intx, 1)) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        state.calls.push(Call::UnmaskBy);
        Ok(())
    }

    fn reset(&self) -> io::Result<()> {
        self.lock().resets += 1;
        Ok(())
    }
}

/// An NVMe-like device: one 16 KiB 64-bit BAR with the MSI-X table at 0x2000 and the pending bits at 0x3000, MSI-X at 0x40,
/// PCI Express with FLR at 0x60, and a VPD capability between them that must not be seen.
pub fn nvme(vectors: u16, resizable: bool) -> Arc<FakeFd> {
    let bars = [(0x4000, 0xc), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0)];
    let fake = FakeFd::new(bars, [1, 0, vectors.into()], resizable)
        .with_config(0x00, &[0x36, 0x1b, 0x10, 0x00])
        .with_config(0x06, &[0x10])
        .with_config(0x0e, &[0x80])
        .with_config(0x34, &[0x40])
        .with_config(0x40, &[0x11, 0x50])
        .with_config(0x42, &(vectors - 1).to_le_bytes())
        .with_config(0x44, &[0x00, 0x20, 0, 0, 0x00, 0x30, 0, 0])
        .with_config(0x50, &[0x03, 0x60, 0x12, 0x34])
        .with_config(0x60, &[0x10, 0x00, 0x02, 0x00, 0x00, 0x80, 0x00, 0x10]);
    Arc::new(fake)
}
