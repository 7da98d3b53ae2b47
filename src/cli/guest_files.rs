//! Where the Linux guest's files are.

use std::path::{Path, PathBuf};

use super::Failure;

/// The directory of `vmlinux` and `initrd`: what was given, else $DOORBELL_GUEST, else target/guest, and where that is not
/// there, as after `cargo install`, $XDG_DATA_HOME/doorbell or ~/.local/share/doorbell.
pub(super) fn guest_dir(given: Option<PathBuf>) -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let built = PathBuf::from("target/guest");
    given.or_else(|| variable("DOORBELL_GUEST")).unwrap_or_else(|| {
        let data =
            variable("XDG_DATA_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/share")));
        let installed = data.map(|data| data.join("doorbell")).filter(|dir| dir.is_dir());
        installed.filter(|_| !built.is_dir()).unwrap_or(built)
    })
}

/// A file of the guest: `path` if it was given, else `name` in `dir`.
pub(super) fn guest_file(
    path: Option<PathBuf>,
    dir: &Path,
    name: &str,
    flag: &str,
) -> Result<PathBuf, Failure> {
    let path = path.unwrap_or_else(|| dir.join(name));
    if path.is_file() {
        return Ok(path);
    }
    let message = format!(
        "no guest: {} does not exist; make it with guest-images/linux/build, or name a file with {flag}",
        path.display()
    );
    Err(Failure { code: 4, message })
}
