use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What a file of /proc or /sys says now. The kernel writes its text anew for each read from the beginning.
///
/// # Errors
/// The read failed, or the text is not UTF-8.
pub fn read_again(file: &File) -> io::Result<String> {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match file.read_at(&mut piece, text.len() as u64) {
            Ok(0) => return String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into()),
            Ok(n) => text.extend_from_slice(&piece[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
