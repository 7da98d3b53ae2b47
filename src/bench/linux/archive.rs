//! The archives of a Linux guest: the host gives it a cpio (newc), and it returns a tar.

/// Files for an initramfs (Linux, Documentation/driver-api/early-userspace/buffer-format.rst). The kernel also unpacks
/// an archive that is appended to another one.
#[derive(Default)]
pub struct Cpio {
    bytes: Vec<u8>,
    inode: u32,
}

impl Cpio {
    /// Adds a directory.
    pub fn directory(&mut self, name: &str) {
        self.entry(name, 0o040_755, &[]);
    }

    /// Adds a file.
    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, 0o100_000 | mode, content);
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let (size, name_size) = (content.len() as u32, name.len() as u32 + 1);
        // inode, mode, uid, gid, links, time, size, device (two), special device (two), name size, checksum
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

/// The regular files of a tar archive (POSIX.1-1988 ustar), by name without a leading `./`; `None` if it is not
/// one. The guest is not trusted: bytes after the end and truncated files are left out.
pub fn untar(bytes: &[u8]) -> Option<Vec<(String, &[u8])>> {
    const BLOCK: usize = 512;
    if bytes.get(257..262)? != b"ustar" {
        return None;
    }
    let text = |field: &[u8]| {
        let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
        String::from_utf8_lossy(&field[..end]).into_owned()
    };
    let mut files = Vec::new();
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + BLOCK).filter(|header| header[0] != 0) {
        let Ok(size) = usize::from_str_radix(text(&header[124..136]).trim(), 8) else { break };
        let content = at + BLOCK;
        let Some(file) = content.checked_add(size).and_then(|end| bytes.get(content..end)) else { break };
        if matches!(header[156], b'0' | 0) {
            let name = text(&header[..100]);
            files.push((name.strip_prefix("./").unwrap_or(&name).to_string(), file));
        }
        at = content + size.next_multiple_of(BLOCK);
    }
    Some(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpio_is_laid_out_as_the_kernel_reads_it() {
        let mut cpio = Cpio::default();
        cpio.directory("job");
        cpio.file("job/run", 0o755, b"abcde");
        let bytes = cpio.finish();
        assert_eq!(&bytes[..14], b"07070100000001");
        assert_eq!(&bytes[14..22], b"000041ED");
        let name = bytes.windows(8).position(|w| w == b"job/run\0").unwrap();
        let content = (name + 8).next_multiple_of(4);
        assert_eq!(&bytes[content..content + 8], b"abcde\0\0\0");
        assert_eq!(&bytes[content + 8..content + 14], b"070701");
        assert!(bytes.windows(11).any(|w| w == b"TRAILER!!!\0") && bytes.len().is_multiple_of(4));
    }

    fn tar(files: &[(&str, u8, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, kind, content) in files {
            let mut header = [0; 512];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
            header[156] = *kind;
            header[257..263].copy_from_slice(b"ustar\0");
            out.extend_from_slice(&header);
            out.extend_from_slice(content);
            out.resize(out.len().next_multiple_of(512), 0);
        }
        out.resize(out.len() + 1024, 0);
        out
    }

    #[test]
    fn regular_files_come_out_of_a_tar() {
        let big = [7; 700];
        let bytes = tar(&[("./", b'5', b""), ("./status", b'0', b"0\n"), ("big", 0, &big)]);
        let files = untar(&bytes).unwrap();
        assert_eq!(files, [("status".into(), &b"0\n"[..]), ("big".into(), &big[..])]);
    }

    #[test]
    fn an_empty_disk_is_not_a_tar_and_a_cut_one_ends() {
        assert_eq!(untar(&[0; 4096]), None);
        assert_eq!(untar(b""), None);
        let bytes = tar(&[("a", b'0', b"x"), ("b", b'0', &[1; 2000])]);
        assert_eq!(untar(&bytes[..2048]).unwrap().len(), 1);
        let mut bad = tar(&[("a", b'0', b"x")]);
        bad[124..136].copy_from_slice(b"77777777777\0");
        assert_eq!(untar(&bad), Some(Vec::new()));
        bad[124] = b'z';
        assert_eq!(untar(&bad), Some(Vec::new()));
    }
}
