//! The ioctls of linux/vfio.h and linux/iommufd.h that a VMM needs, each as one call.
//!
//! By hand rather than through vfio-ioctls: its `SET_IRQS` always starts at vector 0 and cannot leave holes, and its region
//! accesses swallow errors.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::raw::c_ulong;

use iommufd_bindings::{
    IOMMUFD_CMD_BASE, IOMMUFD_CMD_IOAS_ALLOC, IOMMUFD_CMD_IOAS_MAP, iommu_ioas_alloc, iommu_ioas_map,
    iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA as MAP_FIXED,
    iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE as MAP_READ,
    iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE as MAP_WRITE,
};
use vfio_bindings::bindings::vfio::*;
use vmm_sys_util::ioctl_io_nr;

ioctl_io_nr!(VFIO_GET_API_VERSION, VFIO_TYPE.into(), VFIO_BASE);
ioctl_io_nr!(VFIO_CHECK_EXTENSION, VFIO_TYPE.into(), VFIO_BASE + 1);
ioctl_io_nr!(VFIO_SET_IOMMU, VFIO_TYPE.into(), VFIO_BASE + 2);
ioctl_io_nr!(VFIO_GROUP_GET_STATUS, VFIO_TYPE.into(), VFIO_BASE + 3);
ioctl_io_nr!(VFIO_GROUP_SET_CONTAINER, VFIO_TYPE.into(), VFIO_BASE + 4);
ioctl_io_nr!(VFIO_GROUP_GET_DEVICE_FD, VFIO_TYPE.into(), VFIO_BASE + 6);
ioctl_io_nr!(VFIO_DEVICE_GET_INFO, VFIO_TYPE.into(), VFIO_BASE + 7);
ioctl_io_nr!(VFIO_DEVICE_GET_REGION_INFO, VFIO_TYPE.into(), VFIO_BASE + 8);
ioctl_io_nr!(VFIO_DEVICE_GET_IRQ_INFO, VFIO_TYPE.into(), VFIO_BASE + 9);
ioctl_io_nr!(VFIO_DEVICE_SET_IRQS, VFIO_TYPE.into(), VFIO_BASE + 10);
ioctl_io_nr!(VFIO_DEVICE_RESET, VFIO_TYPE.into(), VFIO_BASE + 11);
ioctl_io_nr!(VFIO_IOMMU_MAP_DMA, VFIO_TYPE.into(), VFIO_BASE + 13);
ioctl_io_nr!(VFIO_IOMMU_UNMAP_DMA, VFIO_TYPE.into(), VFIO_BASE + 14);
ioctl_io_nr!(VFIO_DEVICE_BIND_IOMMUFD, VFIO_TYPE.into(), VFIO_BASE + 18);
ioctl_io_nr!(VFIO_DEVICE_ATTACH_IOMMUFD_PT, VFIO_TYPE.into(), VFIO_BASE + 19);
ioctl_io_nr!(IOMMU_IOAS_ALLOC, VFIO_TYPE.into(), IOMMUFD_CMD_IOAS_ALLOC);
ioctl_io_nr!(IOMMU_IOAS_MAP, VFIO_TYPE.into(), IOMMUFD_CMD_IOAS_MAP);

const _: () = assert!(IOMMUFD_CMD_BASE == 0x80);

/// Calls `request` with a number or a pointer as its argument.
///
/// # Safety
/// `argument` is what the kernel expects for `request`; a pointer points to memory that the kernel may read and write.
unsafe fn ioctl(fd: impl AsRawFd, request: c_ulong, argument: c_ulong) -> io::Result<i32> {
    // SAFETY: the caller's promise.
    let ret = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, argument) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// As [`ioctl`], with a struct that the kernel may fill in.
///
/// # Safety
/// `T` is the struct of `request`, and its size field is at most the size of `T`.
unsafe fn ioctl_struct<T>(fd: impl AsRawFd, request: c_ulong, argument: &mut T) -> io::Result<i32> {
    // SAFETY: the pointer is valid for a T; the rest is the caller's promise.
    unsafe { ioctl(fd, request, (&raw mut *argument) as c_ulong) }
}

/// Whether `VFIO_GET_API_VERSION` is 0 and the type-1 IOMMU (version 2) is supported.
pub fn container_fits(container: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: both take a number.
    unsafe {
        Ok(ioctl(container, VFIO_GET_API_VERSION(), 0)? == VFIO_API_VERSION as i32
            && ioctl(container, VFIO_CHECK_EXTENSION(), VFIO_TYPE1v2_IOMMU.into())? == 1)
    }
}

/// `VFIO_GROUP_GET_STATUS`: whether the group is viable: no driver of the host has one of its devices.
pub fn group_viable(group: BorrowedFd<'_>) -> io::Result<bool> {
    let mut status = vfio_group_status { argsz: size_of::<vfio_group_status>() as u32, flags: 0 };
    // SAFETY: the struct of this ioctl.
    unsafe { ioctl_struct(group, VFIO_GROUP_GET_STATUS(), &mut status)? };
    Ok(status.flags & VFIO_GROUP_FLAGS_VIABLE != 0)
}

/// `VFIO_GROUP_SET_CONTAINER`.
pub fn group_set_container(group: BorrowedFd<'_>, container: BorrowedFd<'_>) -> io::Result<()> {
    let mut fd = container.as_raw_fd();
    // SAFETY: it takes a pointer to a descriptor.
    unsafe { ioctl_struct(group, VFIO_GROUP_SET_CONTAINER(), &mut fd)? };
    Ok(())
}

/// `VFIO_SET_IOMMU` to type 1, version 2; a group must be in the container.
pub fn container_set_iommu(container: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: it takes a number.
    unsafe { ioctl(container, VFIO_SET_IOMMU(), VFIO_TYPE1v2_IOMMU.into())? };
    Ok(())
}

/// `VFIO_GROUP_GET_DEVICE_FD`.
pub fn group_device(group: BorrowedFd<'_>, bdf: &str) -> io::Result<OwnedFd> {
    let name = std::ffi::CString::new(bdf)?;
    // SAFETY: it takes a C string and returns a descriptor that we own.
    unsafe { Ok(OwnedFd::from_raw_fd(ioctl(group, VFIO_GROUP_GET_DEVICE_FD(), name.as_ptr() as c_ulong)?)) }
}

/// `VFIO_IOMMU_MAP_DMA`: lets the devices of the container read and write `len` bytes at `address` of this process as
/// `iova`.
///
/// # Safety
/// The memory stays mapped until [`container_unmap`] or until the container is closed, and no Rust reference to it exists
/// that a write by a device would invalidate.
pub unsafe fn container_map(container: BorrowedFd<'_>, iova: u64, address: u64, len: u64) -> io::Result<()> {
    let mut map = vfio_iommu_type1_dma_map {
        argsz: size_of::<vfio_iommu_type1_dma_map>() as u32,
        flags: VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
        vaddr: address,
        iova,
        size: len,
    };
    // SAFETY: the struct of this ioctl; the memory is the caller's promise.
    unsafe { ioctl_struct(container, VFIO_IOMMU_MAP_DMA(), &mut map)? };
    Ok(())
}

/// `VFIO_IOMMU_UNMAP_DMA`.
pub fn container_unmap(container: BorrowedFd<'_>, iova: u64, len: u64) -> io::Result<()> {
    let argsz = size_of::<vfio_iommu_type1_dma_unmap>() as u32;
    let mut unmap = vfio_iommu_type1_dma_unmap { argsz, iova, size: len, ..Default::default() };
    // SAFETY: the struct of this ioctl, without a bitmap behind it.
    unsafe { ioctl_struct(container, VFIO_IOMMU_UNMAP_DMA(), &mut unmap)? };
    Ok(())
}

/// `IOMMU_IOAS_ALLOC`: a new I/O address space; returns its ID.
pub fn ioas_alloc(iommufd: BorrowedFd<'_>) -> io::Result<u32> {
    let size = size_of::<iommu_ioas_alloc>() as u32;
    let mut alloc = iommu_ioas_alloc { size, flags: 0, out_ioas_id: 0 };
    // SAFETY: the struct of this ioctl.
    unsafe { ioctl_struct(iommufd, IOMMU_IOAS_ALLOC(), &mut alloc)? };
    Ok(alloc.out_ioas_id)
}

/// `IOMMU_IOAS_MAP` at a fixed address.
///
/// # Safety
/// As for [`container_map`]; unmapped when the iommufd is closed.
pub unsafe fn ioas_map(
    iommufd: BorrowedFd<'_>,
    ioas: u32,
    iova: u64,
    address: u64,
    len: u64,
) -> io::Result<()> {
    let mut map = iommu_ioas_map {
        size: size_of::<iommu_ioas_map>() as u32,
        flags: MAP_FIXED | MAP_READ | MAP_WRITE,
        ioas_id: ioas,
        __reserved: 0,
        user_va: address,
        length: len,
        iova,
    };
    // SAFETY: the struct of this ioctl; the memory is the caller's promise.
    unsafe { ioctl_struct(iommufd, IOMMU_IOAS_MAP(), &mut map)? };
    Ok(())
}

/// `VFIO_DEVICE_BIND_IOMMUFD`, which must be the first ioctl on a character device.
pub fn device_bind(device: BorrowedFd<'_>, iommufd: BorrowedFd<'_>) -> io::Result<()> {
    // Up to out_devid: the fields behind it came with later kernels.
    let argsz = std::mem::offset_of!(vfio_device_bind_iommufd, token_uuid_ptr) as u32;
    let mut bind = vfio_device_bind_iommufd { argsz, iommufd: iommufd.as_raw_fd(), ..Default::default() };
    // SAFETY: the struct of this ioctl.
    unsafe { ioctl_struct(device, VFIO_DEVICE_BIND_IOMMUFD(), &mut bind)? };
    Ok(())
}

/// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`: the device's DMA goes through this address space.
pub fn device_attach(device: BorrowedFd<'_>, ioas: u32) -> io::Result<()> {
    let argsz = std::mem::offset_of!(vfio_device_attach_iommufd_pt, pasid) as u32;
    let mut attach = vfio_device_attach_iommufd_pt { argsz, pt_id: ioas, ..Default::default() };
    // SAFETY: the struct of this ioctl.
    unsafe { ioctl_struct(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT(), &mut attach)? };
    Ok(())
}

/// `VFIO_DEVICE_GET_INFO`: (flags, regions, interrupt indices).
pub fn device_info(device: BorrowedFd<'_>) -> io::Result<(u32, u32, u32)> {
    let argsz = size_of::<vfio_device_info>() as u32;
    let mut info = vfio_device_info { argsz, ..Default::default() };
    // SAFETY: the struct of this ioctl.
    unsafe { ioctl_struct(device, VFIO_DEVICE_GET_INFO(), &mut info)? };
    Ok((info.flags, info.num_regions, info.num_irqs))
}

/// `VFIO_DEVICE_GET_REGION_INFO`: the struct and the capabilities behind it, as bytes in 8-byte words.
pub fn region_info(device: BorrowedFd<'_>, index: u32) -> io::Result<Vec<u8>> {
    let mut len = size_of::<vfio_region_info>();
    loop {
        let mut words = vec![0u64; len.div_ceil(8)];
        let info = words.as_mut_ptr().cast::<vfio_region_info>();
        // SAFETY: the buffer is aligned for the struct, holds at least its size, and argsz says how much.
        let argsz = unsafe {
            (*info).argsz = len as u32;
            (*info).index = index;
            ioctl(device, VFIO_DEVICE_GET_REGION_INFO(), info as c_ulong)?;
            (*info).argsz as usize
        };
        // 64 KiB hold 4000 sparse areas.
        if argsz <= len || argsz > 0x1_0000 {
            return Ok(words.iter().flat_map(|word| word.to_ne_bytes()).take(len).collect());
        }
        len = argsz;
    }
}

/// `VFIO_DEVICE_GET_IRQ_INFO`: (flags, count).
pub fn irq_info(device: BorrowedFd<'_>, index: u32) -> io::Result<(u32, u32)> {
    let mut info = vfio_irq_info { argsz: size_of::<vfio_irq_info>() as u32, index, ..Default::default() };
    // SAFETY: the struct of this ioctl.
    unsafe { ioctl_struct(device, VFIO_DEVICE_GET_IRQ_INFO(), &mut info)? };
    Ok((info.flags, info.count))
}

/// `VFIO_DEVICE_SET_IRQS` with one eventfd for each of the vectors from `start` on (-1: none), or without data and with
/// `count` 0 or 1. A positive result means that the host has only that many of the requested vectors.
pub fn set_irqs(
    device: BorrowedFd<'_>,
    action: u32,
    (index, start, count): (u32, u32, u32),
    fds: Option<&[RawFd]>,
) -> io::Result<i32> {
    let data = fds.unwrap_or_default();
    let kind = if fds.is_some() { VFIO_IRQ_SET_DATA_EVENTFD } else { VFIO_IRQ_SET_DATA_NONE };
    let argsz = (5 * size_of::<u32>() + size_of_val(data)) as u32;
    // struct vfio_irq_set is five words, then the data.
    let mut words = vec![argsz, kind | action, index, start, count];
    words.extend(data.iter().map(|&fd| fd as u32));
    // SAFETY: the buffer is as long as its first word says, and the kernel only reads it.
    unsafe { ioctl(device, VFIO_DEVICE_SET_IRQS(), words.as_ptr() as c_ulong) }
}

/// `VFIO_DEVICE_RESET`.
pub fn device_reset(device: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: it takes nothing.
    unsafe { ioctl(device, VFIO_DEVICE_RESET(), 0)? };
    Ok(())
}
