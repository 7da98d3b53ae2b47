use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use vfio_bindings::bindings::vfio::{VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_ACTION_UNMASK};

use crate::vfio::kernel::region::{Area, Region};
use crate::vfio::kernel::sys;

/// A kind of interrupt: `VFIO_PCI_*_IRQ_INDEX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IrqIndex {
    /// The level line.
    Intx = 0,
    /// MSI, 1 to 32 vectors.
    Msi = 1,
    /// MSI-X, 1 to 2048 vectors.
    Msix = 2,
    /// The device reported an error that it cannot go on from (AER).
    Error = 3,
    /// The host requests the device's release.
    Request = 4,
}

impl IrqIndex {
    /// The name for display.
    pub fn name(self) -> &'static str {
        crate::vfio::kernel::region::irq_name(self as u32)
    }
}

/// Flags and count of an interrupt index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IrqInfo {
    /// `VFIO_IRQ_INFO_*`.
    pub flags: u32,
    /// Vectors.
    pub count: u32,
}

/// An open VFIO device: [`VfioFd`], or a fake in tests. Region offsets are bytes from the region's start.
pub trait DeviceFd: Send + Sync + fmt::Debug {
    /// All regions, by index.
    fn regions(&self) -> &[Region];
    /// One interrupt index; count 0 if the device has none of these.
    fn irq_info(&self, index: IrqIndex) -> IrqInfo;
    /// Whether `VFIO_DEVICE_RESET` works.
    fn can_reset(&self) -> bool;
    /// Reads from a region with one access.
    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()>;
    /// Writes to a region with one access.
    fn write(&self, region: u32, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Maps a part of a region.
    fn map(&self, region: u32, area: Area) -> io::Result<Mapping>;
    /// Binds the vectors from `start` on to these eventfds, one call for all; -1 unbinds one and keeps its place. `Some`: the host
    /// has only that many vectors for the device, and nothing was bound.
    fn set_eventfds(&self, index: IrqIndex, start: u32, fds: &[RawFd]) -> io::Result<Option<u32>>;
    /// Disables all vectors of an index.
    fn disable(&self, index: IrqIndex) -> io::Result<()>;
    /// Makes the kernel signal the eventfd of `vector` as if the device had.
    fn trigger(&self, index: IrqIndex, vector: u32) -> io::Result<()>;
    /// Sets the eventfd that unmasks INTx when it is signalled.
    fn unmask_intx_by(&self, fd: RawFd) -> io::Result<()>;
    /// `VFIO_DEVICE_RESET`: FLR, power state or bus reset, as the kernel chooses.
    fn reset(&self) -> io::Result<()>;
}

/// A part of a device mapped into this process.
#[derive(Debug)]
pub struct Mapping {
    address: usize,
    len: usize,
}

impl Mapping {
    /// Maps `len` bytes of `fd` at `offset`, shared.
    ///
    /// # Errors
    /// errno of mmap.
    pub fn new(fd: RawFd, offset: u64, len: u64, prot: i32) -> io::Result<Mapping> {
        let len = usize::try_from(len).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        // SAFETY: a new mapping, placed by the kernel; no Rust reference to it is ever made.
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, fd, offset as libc::off_t)
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { address: address as usize, len })
    }

    /// Address in this process.
    pub fn address(&self) -> u64 {
        self.address as u64
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// False: a mapping always has bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` and is not shared.
        unsafe { libc::munmap(self.address as *mut libc::c_void, self.len) };
    }
}

/// An open device: its file descriptor.
#[derive(Debug)]
pub struct VfioFd {
    fd: OwnedFd,
    flags: u32,
    regions: Vec<Region>,
    irqs: Vec<IrqInfo>,
}

impl VfioFd {
    /// Reads the device's regions and interrupts.
    ///
    /// # Errors
    /// errno of the ioctl that failed.
    pub fn new(fd: OwnedFd) -> io::Result<VfioFd> {
        let (flags, regions, irqs) = sys::device_info(fd.as_fd())?;
        // An index that does not exist (legacy VGA) gives EINVAL.
        let region = |index| {
            sys::region_info(fd.as_fd(), index)
                .map_or_else(|_| Region { index, ..Region::default() }, |info| Region::parse(&info))
        };
        let irq = |index| {
            sys::irq_info(fd.as_fd(), index)
                .map_or(IrqInfo::default(), |(flags, count)| IrqInfo { flags, count })
        };
        // Usually 9 and 5, and a few device specific ones.
        let regions = (0..regions.min(64)).map(region).collect();
        let irqs = (0..irqs.min(64)).map(irq).collect();
        Ok(VfioFd { fd, flags, regions, irqs })
    }

    /// `VFIO_DEVICE_FLAGS_*`.
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// All interrupt indices.
    pub fn irqs(&self) -> &[IrqInfo] {
        &self.irqs
    }

    fn place(&self, region: u32, offset: u64, len: usize) -> io::Result<libc::off_t> {
        let found = self.regions.get(region as usize);
        let fits = found.filter(|r| offset.checked_add(len as u64).is_some_and(|end| end <= r.size));
        fits.map(|r| (r.offset + offset) as libc::off_t)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
    }
}

fn whole(done: isize, len: usize) -> io::Result<()> {
    match done {
        n if n == len as isize => Ok(()),
        n if n < 0 => Err(io::Error::last_os_error()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

impl DeviceFd for VfioFd {
    fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn irq_info(&self, index: IrqIndex) -> IrqInfo {
        self.irqs.get(index as usize).copied().unwrap_or_default()
    }

    fn can_reset(&self) -> bool {
        self.flags & vfio_bindings::bindings::vfio::VFIO_DEVICE_FLAGS_RESET != 0
    }

    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let place = self.place(region, offset, data.len())?;
        // SAFETY: the buffer has the given length.
        whole(
            unsafe { libc::pread(self.fd.as_raw_fd(), data.as_mut_ptr().cast(), data.len(), place) },
            data.len(),
        )
    }

    fn write(&self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        let place = self.place(region, offset, data.len())?;
        // SAFETY: the buffer has the given length.
        whole(
            unsafe { libc::pwrite(self.fd.as_raw_fd(), data.as_ptr().cast(), data.len(), place) },
            data.len(),
        )
    }

    fn map(&self, region: u32, area: Area) -> io::Result<Mapping> {
        use vfio_bindings::bindings::vfio::{VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE};
        let place = self.place(region, area.offset, 0)? as u64;
        let flags = self.regions[region as usize].flags;
        let read = if flags & VFIO_REGION_INFO_FLAG_READ != 0 { libc::PROT_READ } else { 0 };
        let write = if flags & VFIO_REGION_INFO_FLAG_WRITE != 0 { libc::PROT_WRITE } else { 0 };
        Mapping::new(self.fd.as_raw_fd(), place, area.len, read | write)
    }

    fn set_eventfds(&self, index: IrqIndex, start: u32, fds: &[RawFd]) -> io::Result<Option<u32>> {
        let range = (index as u32, start, fds.len() as u32);
        let left = sys::set_irqs(self.fd.as_fd(), VFIO_IRQ_SET_ACTION_TRIGGER, range, Some(fds))?;
        Ok((left > 0).then_some(left.unsigned_abs()))
    }

    fn disable(&self, index: IrqIndex) -> io::Result<()> {
        sys::set_irqs(self.fd.as_fd(), VFIO_IRQ_SET_ACTION_TRIGGER, (index as u32, 0, 0), None).map(drop)
    }

    fn trigger(&self, index: IrqIndex, vector: u32) -> io::Result<()> {
        sys::set_irqs(self.fd.as_fd(), VFIO_IRQ_SET_ACTION_TRIGGER, (index as u32, vector, 1), None).map(drop)
    }

    fn unmask_intx_by(&self, fd: RawFd) -> io::Result<()> {
        let range = (IrqIndex::Intx as u32, 0, 1);
        sys::set_irqs(self.fd.as_fd(), VFIO_IRQ_SET_ACTION_UNMASK, range, Some(&[fd])).map(drop)
    }

    fn reset(&self) -> io::Result<()> {
        sys::device_reset(self.fd.as_fd())
    }
}
