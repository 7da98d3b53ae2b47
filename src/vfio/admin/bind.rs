//! Binds a device to vfio-pci, and to its former driver again.

use std::fs;
use std::path::PathBuf;

use crate::vfio::admin::host::{HostDevice, VFIO_PCI};
use crate::vfio::admin::in_use;
use crate::vfio::{Bdf, Host, VfioError};

/// The result of [`bind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The former driver; [`unbind`] restores it.
    pub before: Option<String>,
    /// False: it was bound to vfio-pci already.
    pub changed: bool,
}

/// Binds `bdf` to vfio-pci through its driver_override, so that no other device of the same kind is affected. The former
/// driver is recorded under /run/doorbell, for [`unbind`]. On an error the device keeps its driver.
///
/// # Errors
/// There is no such device, no IOMMU or no vfio-pci; the device is in use; permission is missing; or the driver refused it.
pub fn bind(host: &Host, bdf: Bdf) -> Result<Bound, VfioError> {
    let device = host.device(bdf)?;
    if device.driver.as_deref() == Some(VFIO_PCI) {
        return Ok(Bound { before: noted(host, bdf).flatten(), changed: false });
    }
    if device.group.is_none() {
        return Err(VfioError::NoIommu(bdf));
    }
    if !host.driver_dir(VFIO_PCI).exists() {
        return Err(VfioError::NoVfioPci);
    }
    in_use::check(host, bdf)?;
    let dir = host.device_dir(bdf);
    let before = if interrupted(host, &device) { noted(host, bdf).flatten() } else { device.driver.clone() };
    // First, so that the former driver is recorded even if doorbell is interrupted.
    note(host, bdf, before.as_deref());
    if let Err(error) = host.write(&dir.join("driver_override"), VFIO_PCI) {
        forget(host, bdf);
        return Err(error);
    }
    if device.driver.is_some()
        && let Err(error) = host.write(&dir.join("driver/unbind"), &bdf.to_string())
    {
        let _ = host.write(&dir.join("driver_override"), "\n");
        forget(host, bdf);
        return Err(error);
    }
    let probed = host.write(&host.path("sys/bus/pci/drivers_probe"), &bdf.to_string());
    if host.driver(bdf).as_deref() == Some(VFIO_PCI) {
        return Ok(Bound { before, changed: true });
    }
    // Restore the former state.
    let _ = rebind_driver(host, bdf, Some(before.as_deref()));
    forget(host, bdf);
    let left = match host.driver(bdf) {
        Some(driver) => format!("it is bound to {driver} again"),
        None => "it has no driver now".into(),
    };
    Err(VfioError::Refused { bdf, driver: VFIO_PCI.into(), source: io_of(probed.err()), left })
}

/// Unbinds `bdf` from vfio-pci and binds it to its driver before [`bind`], or without a record of that to the one that the
/// kernel chooses. Returns the driver.
///
/// # Errors
/// There is no such device; it is not bound to vfio-pci; a VMM uses it; or the driver refused it.
pub fn unbind(host: &Host, bdf: Bdf) -> Result<Option<String>, VfioError> {
    let device = host.device(bdf)?;
    let half_way = interrupted(host, &device);
    if device.driver.as_deref() != Some(VFIO_PCI) && !half_way {
        return Err(VfioError::NotOurs { bdf, driver: device.driver });
    }
    if in_use::opened_by_another(host, bdf) {
        // The kernel would wait without limit until that process closes the device.
        return Err(VfioError::Busy { bdf });
    }
    let before = noted(host, bdf);
    if !half_way {
        host.write(&host.device_dir(bdf).join("driver/unbind"), &bdf.to_string())?;
    }
    let source = io_of(rebind_driver(host, bdf, before.as_ref().map(Option::as_deref)).err());
    forget(host, bdf);
    let driver = host.driver(bdf);
    match before.flatten() {
        Some(name) if driver.as_deref() != Some(&name) => {
            let left = driver.map_or("it has no driver now".into(), |d| format!("it is bound to {d} now"));
            Err(VfioError::Refused { bdf, driver: name, source, left })
        }
        _ => Ok(driver),
    }
}

/// Whether a [`bind`] of the device was interrupted: it has no driver, an override for vfio-pci, and a recorded driver.
fn interrupted(host: &Host, device: &HostDevice) -> bool {
    let override_path = host.device_dir(device.bdf).join("driver_override");
    let meant = fs::read_to_string(override_path).is_ok_and(|text| text.trim() == VFIO_PCI);
    device.driver.is_none() && meant && noted(host, device.bdf).is_some()
}

/// Clears the override and binds the device to its former driver (`Some(None)`: to none); without a record, to the kernel's
/// choice. Binds by name only if the kernel chooses none: it usually finds the same driver.
fn rebind_driver(host: &Host, bdf: Bdf, before: Option<Option<&str>>) -> Result<(), VfioError> {
    host.write(&host.device_dir(bdf).join("driver_override"), "\n")?;
    if before == Some(None) {
        return Ok(());
    }
    let probed = host.write(&host.path("sys/bus/pci/drivers_probe"), &bdf.to_string());
    match before.flatten() {
        Some(name) if host.driver(bdf).is_none() => {
            host.write(&host.driver_dir(name).join("bind"), &bdf.to_string())
        }
        _ => probed,
    }
}

fn io_of(error: Option<VfioError>) -> Option<std::io::Error> {
    match error? {
        VfioError::File { source, .. } => Some(source),
        _ => None,
    }
}

fn note_path(host: &Host, bdf: Bdf) -> PathBuf {
    host.path("run/doorbell/vfio").join(bdf.to_string())
}

fn note(host: &Host, bdf: Bdf, driver: Option<&str>) {
    let path = note_path(host, bdf);
    // Without a writable /run, unbind lets the kernel choose the driver.
    if let Some(dir) = path.parent()
        && fs::create_dir_all(dir).is_ok()
    {
        let _ = fs::write(path, driver.unwrap_or_default());
    }
}

/// The recorded driver. `Some(None)`: the device had none.
fn noted(host: &Host, bdf: Bdf) -> Option<Option<String>> {
    fs::read_to_string(note_path(host, bdf)).ok().map(|name| Some(name).filter(|name| !name.is_empty()))
}

fn forget(host: &Host, bdf: Bdf) {
    let _ = fs::remove_file(note_path(host, bdf));
}

#[cfg(test)]
#[path = "bind_tests.rs"]
mod tests;
