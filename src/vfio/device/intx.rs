use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::kvm::{Gsi, Irqfd, VmIoctls};
use crate::vfio::IrqPath;
use crate::vfio::device::eventfd_poller::{EventfdPoller, PolledEventfd};
use crate::vfio::kernel::device_fd::{DeviceFd, IrqIndex};

/// A device's level interrupt. When it fires, VFIO masks it and signals an eventfd, and a level irqfd raises the pin. At the
/// guest's EOI, KVM lowers the pin and signals the resamplefd, at which VFIO unmasks. If the device still has cause, it fires
/// again.
#[derive(Debug)]
pub struct Intx {
    _irqfd: Irqfd,
    _resample: EventFd,
    through_vmm: Arc<AtomicU64>,
    _polled: Option<PolledEventfd>,
}

impl Intx {
    /// Arms INTx. With `irq=user` the device signals a second eventfd, which the VMM reads and passes on. The unmask is the
    /// same, because only KVM sees the EOI.
    ///
    /// # Errors
    /// The host cannot provide INTx (a shared line, and a device without INTx Disable), or KVM refused. Then INTx is off.
    pub fn arm(
        fd: &dyn DeviceFd,
        vm: Arc<dyn VmIoctls>,
        gsi: Gsi,
        path: IrqPath,
        poller: &EventfdPoller,
    ) -> io::Result<Intx> {
        let event = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        let resample = EventFd::new(EFD_NONBLOCK)?;
        let through_vmm = Arc::new(AtomicU64::new(0));
        let (signalled, watch) = match path {
            IrqPath::Kernel => (event.clone(), None),
            IrqPath::User => {
                let second = Arc::new(EventFd::new(EFD_NONBLOCK)?);
                let (to, count) = (event.clone(), through_vmm.clone());
                let watch = poller.watch(second.clone(), move || {
                    count.fetch_add(1, Ordering::Relaxed);
                    let _ = to.write(1);
                });
                (second, Some(watch.map_err(io::Error::other)?))
            }
        };
        fd.set_eventfds(IrqIndex::Intx, 0, &[signalled.as_raw_fd()])?;
        // The unmask eventfd first: assigning the irqfd may deliver an interrupt that is pending, and its EOI must unmask.
        let armed = fd
            .unmask_intx_by(resample.as_raw_fd())
            .and_then(|()| Irqfd::with_resample(vm, gsi, event, &resample).map_err(io::Error::other));
        match armed {
            Ok(irqfd) => Ok(Intx { _irqfd: irqfd, _resample: resample, through_vmm, _polled: watch }),
            Err(error) => {
                let _ = fd.disable(IrqIndex::Intx);
                Err(error)
            }
        }
    }

    /// How often the VMM has passed it on.
    pub fn through_vmm(&self) -> u64 {
        self.through_vmm.load(Ordering::Relaxed)
    }
}
