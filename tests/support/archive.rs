//! The two archives that a guest and its host exchange: a cpio (newc) in, a tar out.

use std::collections::HashMap;

/// A newc archive of directories and files, all owned by root.
#[derive(Default)]
pub struct Cpio {
    bytes: Vec<u8>,
    inode: u32,
}

impl Cpio {
    pub fn directory(&mut self, name: &str) {
        self.entry(name, 0o040_755, &[]);
    }

    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, 0o100_000 | mode, content);
    }

    /// The archive, ended.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let (size, name_size) = (content.len() as u32, name.len() as u32 + 1);
        // inode, mode, uid, gid, nlink, mtime, size, dev and rdev (major, minor), name size, checksum
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
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
}

/// The regular files of a tar, by their names without the leading `./`; none if it is no tar.
pub fn untar(tar: &[u8]) -> HashMap<String, Vec<u8>> {
    let mut files = HashMap::new();
    let mut rest = tar;
    while let Some(header) = rest.get(..512).filter(|h| h[257..262] == *b"ustar") {
        let text = |at: std::ops::Range<usize>| {
            let field = header[at].split(|&b| b == 0).next().unwrap_or_default();
            String::from_utf8_lossy(field).trim().to_string()
        };
        let Ok(size) = usize::from_str_radix(&text(124..136), 8) else { break };
        let Some(content) = rest.get(512..512 + size) else { break };
        if header[156] == b'0' {
            files.insert(text(0..100).trim_start_matches("./").to_string(), content.to_vec());
        }
        rest = rest.get(512 + size.next_multiple_of(512)..).unwrap_or_default();
    }
    files
}
