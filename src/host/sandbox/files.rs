//! Landlock: which files may still be opened by name. Those that are open stay usable.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, Scope,
};

/// What may be done below a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Read files and list directories.
    Read,
    /// Make a file and take another's name for it: how a result is put in its place.
    Replace,
    /// Remove a file: the control socket's name at the end.
    Remove,
}

/// A Landlock ruleset; nothing but what it names can be opened, made or removed, and no TCP port used.
#[derive(Debug)]
pub struct Files(Option<OwnedFd>);

impl Files {
    /// A ruleset that allows `rights`. Directories that are not there are left out.
    ///
    /// # Errors
    /// The kernel refused, in its words.
    pub fn only(rights: &[(PathBuf, Right)]) -> Result<Files, String> {
        Files::make(rights).map(|made| Files(made.into())).map_err(|error| error.to_string())
    }

    fn make(rights: &[(PathBuf, Right)]) -> Result<RulesetCreated, RulesetError> {
        // As much of it as the kernel knows: file rights from Linux 5.13, ports from 6.7, abstract sockets from 6.12.
        let abi = ABI::V6;
        let mut ruleset = Ruleset::default()
            .handle_access(AccessFs::from_all(abi))?
            .handle_access(AccessNet::from_all(abi))?
            .scope(Scope::AbstractUnixSocket)?
            .create()?;
        for (path, right) in rights {
            let allowed: BitFlags<AccessFs> = match right {
                Right::Read => AccessFs::ReadFile | AccessFs::ReadDir,
                Right::Replace => AccessFs::MakeReg | AccessFs::RemoveFile | AccessFs::ReadDir,
                Right::Remove => AccessFs::RemoveFile.into(),
            };
            if let Ok(directory) = open(path) {
                ruleset = ruleset.add_rule(PathBeneath::new(directory, allowed))?;
            }
        }
        Ok(ruleset)
    }

    /// `None`: the kernel has no Landlock.
    pub(super) fn fd(&self) -> Option<RawFd> {
        self.0.as_ref().map(AsRawFd::as_raw_fd)
    }
}

fn open(path: &Path) -> Result<PathFd, landlock::PathFdError> {
    PathFd::new(path)
}
