//! The smallest VFIO program: an eventfd on one vector, and no VM.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::EventFd;

use crate::vfio::kernel::device_fd::{DeviceFd, IrqIndex};
use crate::vfio::{Bdf, Dma, Host, VfioError};

/// The result of a test.
#[derive(Clone, Debug)]
pub struct IrqTest {
    /// The kind of interrupt.
    pub index: IrqIndex,
    /// The number of its vectors.
    pub count: u32,
    /// The tested vector.
    pub vector: u32,
    /// The eventfd's counter after the trigger.
    pub signalled: u64,
    /// Time from the trigger to the end of the read.
    pub took: Duration,
}

/// Opens `bdf`, binds an eventfd to `vector`, lets the kernel signal it as if the device had, and reads it. This tests the
/// path from VFIO to user space. The device does nothing, because no driver starts it.
///
/// # Errors
/// The device cannot be opened or has no such vector, or an ioctl failed.
pub fn irq_test(host: &Host, bdf: Bdf, vector: u32) -> Result<IrqTest, VfioError> {
    let dma = Dma::new(host.clone(), None);
    let fd = dma.open(bdf)?;
    // MSI-X if the device has it, otherwise MSI, otherwise INTx.
    let kinds = [IrqIndex::Msix, IrqIndex::Msi, IrqIndex::Intx];
    let Some(index) = kinds.into_iter().find(|&index| fd.irq_info(index).count > 0) else {
        return Err(VfioError::Device { bdf, what: "has no interrupts".into() });
    };
    let count = fd.irq_info(index).count;
    if vector >= count {
        let what = format!("has no vector {vector}: its {} has {count}, from 0 on", index.name());
        return Err(VfioError::Device { bdf, what });
    }
    let fail =
        |what: &'static str| move |source| VfioError::Ioctl { ioctl: what, what: bdf.to_string(), source };
    let event = EventFd::new(0).map_err(fail("eventfd"))?;
    fd.set_eventfds(index, vector, &[event.as_raw_fd()]).map_err(fail("VFIO_DEVICE_SET_IRQS (bind)"))?;
    let start = Instant::now();
    fd.trigger(index, vector).map_err(fail("VFIO_DEVICE_SET_IRQS (trigger)"))?;
    // The read does not wait: the eventfd was signalled before the trigger returned.
    let signalled = event.read().map_err(fail("read of the eventfd"))?;
    let took = start.elapsed();
    fd.disable(index).map_err(fail("VFIO_DEVICE_SET_IRQS (disable)"))?;
    Ok(IrqTest { index, count, vector, signalled, took })
}
