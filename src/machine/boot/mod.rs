//! Loads a kernel: a Linux bzImage by the 64-bit boot protocol, or an ELF image (vmlinux, the probe) by PVH.

mod linux;
mod pvh;

use std::borrow::Cow;
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use vm_memory::{Bytes, GuestAddress, ReadVolatile};

use super::MachineError;
use super::cpu_state::Entry;
use super::layout::{self, ECAM_LEN, ECAM_START, boot};
use super::memory::{self, Ram};

/// The source of a kernel.
#[derive(Clone, Debug)]
pub enum Kernel {
    /// A bzImage or an ELF file with a PVH note.
    File(PathBuf),
    /// The same contents, in memory.
    Image(Cow<'static, [u8]>),
}

impl Kernel {
    fn path(&self) -> &Path {
        match self {
            Kernel::File(path) => path,
            Kernel::Image(_) => Path::new("(built in)"),
        }
    }

    fn error(&self, why: impl ToString) -> MachineError {
        MachineError::file("kernel", self.path(), why)
    }
}

/// One range of the guest's memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// First address.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
    /// Whether the guest may use it as RAM, or it is reserved.
    pub usable: bool,
}

/// Returns the memory map for `size` bytes of RAM: conventional memory, the reserved rest below 1 MiB (ACPI tables),
/// RAM, ECAM, RAM above 4 GiB.
pub fn memory_map(size: u64) -> Vec<MemoryRange> {
    let range = |base, end, usable| MemoryRange { base, len: end - base, usable };
    let mut map =
        vec![range(0, boot::LOW_MEMORY_END, true), range(boot::LOW_MEMORY_END, boot::HIGH_MEMORY, false)];
    for (base, len) in memory::ranges(size) {
        map.push(range(base.max(boot::HIGH_MEMORY), base + len, true));
    }
    map.push(range(ECAM_START, ECAM_START + ECAM_LEN, false));
    map.sort_by_key(|r| r.base);
    map
}

/// A source that linux-loader can read a kernel from.
trait Image: Read + ReadVolatile + Seek {}
impl<T: Read + ReadVolatile + Seek> Image for T {}

/// Checks that the files exist and look like a kernel and an initrd. Needs no resources of the host.
///
/// # Errors
/// As [`Boot::load`].
pub fn check(kernel: &Kernel, initrd: Option<&Path>) -> Result<(), MachineError> {
    match kernel {
        Kernel::File(path) => format(kernel, &mut open("kernel", path)?).map(drop)?,
        Kernel::Image(_) => {}
    }
    initrd.map_or(Ok(()), |path| open("initrd", path).map(drop))
}

enum Format {
    BzImage,
    Elf,
}

fn format(kernel: &Kernel, image: &mut impl Image) -> Result<Format, MachineError> {
    const ELF_MAGIC: &[u8] = b"\x7fELF";
    const BZIMAGE_MAGIC: &[u8] = b"HdrS";
    let mut head = Vec::new();
    image.by_ref().take(0x206).read_to_end(&mut head).map_err(|e| kernel.error(plain(&e)))?;
    image.seek(SeekFrom::Start(0)).map_err(|e| kernel.error(plain(&e)))?;
    if head.starts_with(ELF_MAGIC) {
        Ok(Format::Elf)
    } else if head.get(0x202..0x206) == Some(BZIMAGE_MAGIC) {
        Ok(Format::BzImage)
    } else {
        Err(kernel.error("not a kernel: neither a Linux bzImage nor an ELF image (vmlinux) for x86-64"))
    }
}

/// What to load, and where.
pub struct Boot<'a> {
    /// The guest's memory.
    pub ram: &'a Ram,
    /// Its size in bytes.
    pub size: u64,
    /// The kernel.
    pub kernel: &'a Kernel,
    /// Its initial ramdisk.
    pub initrd: Option<&'a Path>,
    /// Its command line.
    pub cmdline: &'a str,
}

impl Boot<'_> {
    /// Loads everything into memory. Returns the entry point.
    ///
    /// # Errors
    /// [`MachineError::File`] if a file is missing, is not a kernel, or does not fit. [`MachineError::Config`] if the
    /// command line is too long.
    pub fn load(&self) -> Result<Entry, MachineError> {
        match self.kernel {
            Kernel::File(path) => self.load_image(open("kernel", path)?),
            Kernel::Image(bytes) => self.load_image(Cursor::new(bytes.as_ref())),
        }
    }

    fn load_image(&self, mut image: impl Image) -> Result<Entry, MachineError> {
        match format(self.kernel, &mut image)? {
            Format::Elf => pvh::load(self, &mut image),
            Format::BzImage => linux::load(self, &mut image),
        }
    }
}

/// Opens a regular file. The error gives the reason in one clause.
fn open(what: &'static str, path: &Path) -> Result<File, MachineError> {
    // O_NONBLOCK: opening a FIFO would wait for a writer.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = file.map_err(|e| MachineError::file(what, path, plain(&e)))?;
    match file.metadata() {
        Ok(meta) if meta.is_dir() => Err(MachineError::file(what, path, "is a directory")),
        Ok(meta) if !meta.is_file() => {
            Err(MachineError::file(what, path, "is not a regular file: copy it into one"))
        }
        Ok(_) => Ok(file),
        Err(e) => Err(MachineError::file(what, path, plain(&e))),
    }
}

/// Returns the text of an I/O error without "(os error n)".
fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

/// Loads the initrd as high as possible between `floor` and `limit`, page aligned. Returns its address and length.
fn load_initrd(ram: &Ram, path: &Path, floor: u64, limit: u64) -> Result<(u64, u64), MachineError> {
    let fail = |why: String| MachineError::file("initrd", path, why);
    let mut file = open("initrd", path)?;
    let len = file.metadata().map_err(|e| fail(plain(&e)))?.len();
    if len == 0 {
        return Err(fail("is empty".into()));
    }
    let base = limit.checked_sub(len).map(|base| base & !0xfff).filter(|&base| base >= floor);
    let base = base.ok_or_else(|| {
        let room = limit.saturating_sub(floor) >> 20;
        fail(format!(
            "its {} MiB do not fit into the {room} MiB that the kernel leaves; raise --memory",
            len >> 20
        ))
    })?;
    ram.read_exact_volatile_from(GuestAddress(base), &mut file, len as usize)
        .map_err(|e| fail(format!("cannot be read: {e}")))?;
    Ok((base, len))
}

/// Writes the command line with its NUL to [`boot::CMDLINE`].
fn write_cmdline(ram: &Ram, cmdline: &str, longest: u64) -> Result<(), MachineError> {
    if cmdline.len() as u64 > longest {
        let why = format!(
            "the kernel command line has {} bytes, and this kernel accepts at most {longest}; shorten it",
            cmdline.len()
        );
        return Err(MachineError::Config(why));
    }
    if cmdline.contains('\0') {
        return Err(MachineError::Config("the kernel command line contains a NUL byte".into()));
    }
    let bytes = [cmdline.as_bytes(), &[0]].concat();
    ram.write_slice(&bytes, GuestAddress(boot::CMDLINE)).map_err(|e| MachineError::Host(e.to_string()))
}

/// Returns the end of RAM below 4 GiB.
fn low_end(size: u64) -> u64 {
    size.min(layout::LOW_RAM_END)
}

#[cfg(test)]
#[path = "boot_tests.rs"]
mod tests;
