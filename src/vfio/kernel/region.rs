use vfio_bindings::bindings::vfio::*;

/// A part of a region that may be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Bytes from the start of the region.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

impl Area {
    /// The offset after its last byte.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.len)
    }
}

/// One region of a device as `VFIO_DEVICE_GET_REGION_INFO` reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Its index: see `region_name`.
    pub index: u32,
    /// Bytes; 0: the region does not exist.
    pub size: u64,
    /// Its place in the device's file.
    pub offset: u64,
    /// `VFIO_REGION_INFO_FLAG_*`.
    pub flags: u32,
    /// The areas that may be mapped: the sparse areas if the kernel names some, otherwise all of a mappable region.
    pub areas: Vec<Area>,
    /// Whether the kernel named the areas (`VFIO_REGION_INFO_CAP_SPARSE_MMAP`).
    pub sparse: bool,
    /// Whether the page of the MSI-X table may be mapped too (`VFIO_REGION_INFO_CAP_MSIX_MAPPABLE`, Linux 4.16).
    pub msix_mappable: bool,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl Region {
    /// Reads a `struct vfio_region_info` with the capability chain behind it. An invalid chain ends early.
    pub fn parse(info: &[u8]) -> Region {
        let word = |at| u32_at(info, at).unwrap_or(0);
        let mut region = Region {
            flags: word(4),
            index: word(8),
            size: u64_at(info, 16).unwrap_or(0),
            offset: u64_at(info, 24).unwrap_or(0),
            ..Region::default()
        };
        let mut at = if region.flags & VFIO_REGION_INFO_FLAG_CAPS != 0 { word(12) as usize } else { 0 };
        for _ in 0..16 {
            // struct vfio_info_cap_header: ID and version in 16 bits each, then the next one's place; 0 ends.
            if at < 32 || at + 8 > info.len() {
                break;
            }
            match word(at) & 0xffff {
                VFIO_REGION_INFO_CAP_SPARSE_MMAP => {
                    region.sparse = true;
                    let areas = (0..word(at + 8) as usize).map_while(|n| {
                        let place = at + 16 + 16 * n;
                        Some(Area { offset: u64_at(info, place)?, len: u64_at(info, place + 8)? })
                    });
                    region.areas = areas.filter(|area| area.len > 0 && area.end() <= region.size).collect();
                }
                VFIO_REGION_INFO_CAP_MSIX_MAPPABLE => region.msix_mappable = true,
                _ => {}
            }
            at = word(at + 4) as usize;
        }
        if region.mappable() && !region.sparse && region.size > 0 {
            region.areas = vec![Area { offset: 0, len: region.size }];
        }
        region
    }

    /// Whether any of it can be mapped.
    pub fn mappable(&self) -> bool {
        self.flags & VFIO_REGION_INFO_FLAG_MMAP != 0
    }
}

/// The name of a region of a PCI device: linux/vfio.h, `VFIO_PCI_*_REGION_INDEX`.
pub fn region_name(index: u32) -> String {
    match index {
        0..=5 => format!("BAR {index}"),
        6 => "expansion ROM".into(),
        7 => "config space".into(),
        8 => "legacy VGA".into(),
        _ => "device specific".into(),
    }
}

/// The name of an interrupt index of a PCI device.
pub fn irq_name(index: u32) -> &'static str {
    ["INTx", "MSI", "MSI-X", "error (AER)", "release request"]
        .get(index as usize)
        .unwrap_or(&"device specific")
}

fn words(flags: u32, names: &[(u32, &'static str)]) -> String {
    let known: Vec<_> = names.iter().filter(|(bit, _)| flags & bit != 0).map(|&(_, name)| name).collect();
    if known.is_empty() { "none".into() } else { known.join(", ") }
}

/// `VFIO_REGION_INFO_FLAG_*` in words.
pub fn region_flags(flags: u32) -> String {
    let names = [
        (VFIO_REGION_INFO_FLAG_READ, "readable"),
        (VFIO_REGION_INFO_FLAG_WRITE, "writable"),
        (VFIO_REGION_INFO_FLAG_MMAP, "mappable"),
        (VFIO_REGION_INFO_FLAG_CAPS, "has a capability chain"),
    ];
    words(flags, &names)
}

/// `VFIO_IRQ_INFO_*` in words.
pub fn irq_flags(flags: u32) -> String {
    let names = [
        (VFIO_IRQ_INFO_EVENTFD, "by eventfd"),
        (VFIO_IRQ_INFO_MASKABLE, "can be masked"),
        (VFIO_IRQ_INFO_AUTOMASKED, "masks itself when it fires"),
        (VFIO_IRQ_INFO_NORESIZE, "no vectors can be added later"),
    ];
    words(flags, &names)
}

/// `VFIO_DEVICE_FLAGS_*` in words.
pub fn device_flags(flags: u32) -> String {
    let names = [
        (VFIO_DEVICE_FLAGS_PCI, "PCI"),
        (VFIO_DEVICE_FLAGS_RESET, "can be reset"),
        (VFIO_DEVICE_FLAGS_CAPS, "has a capability chain"),
    ];
    words(flags, &names)
}

#[cfg(test)]
#[path = "region_tests.rs"]
mod tests;
