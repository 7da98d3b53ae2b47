use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Failure;

/// A file for a result, opened before the work begins, so that a mistake in its name costs no work.
pub(super) struct OutFile {
    flag: &'static str,
    path: PathBuf,
    file: File,
}

impl OutFile {
    /// Opens `path`, which `flag` named. What is in it stays until there is something to put in its place.
    pub(super) fn create(flag: &'static str, path: &Path) -> Result<OutFile, Failure> {
        let file = File::options().write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|error| failure(flag, path, &error))?;
        Ok(OutFile { flag, path: path.into(), file })
    }

    /// Its name.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts `value` into it, on one line.
    pub(super) fn write_json(self, value: &impl Serialize) -> Result<(), Failure> {
        self.write(|out| serde_json::to_writer(out, value))
    }

    /// Puts `value` into it, for eyes too.
    pub(super) fn write_pretty_json(self, value: &impl Serialize) -> Result<(), Failure> {
        self.write(|out| serde_json::to_writer_pretty(out, value))
    }

    fn write(
        self,
        json: impl FnOnce(&mut BufWriter<&File>) -> serde_json::Result<()>,
    ) -> Result<(), Failure> {
        let write = || {
            self.file.set_len(0)?;
            let mut out = BufWriter::new(&self.file);
            json(&mut out)?;
            out.write_all(b"\n")?;
            out.flush()
        };
        write().map_err(|error: io::Error| failure(self.flag, &self.path, &error))
    }
}

fn failure(flag: &str, path: &Path, error: &io::Error) -> Failure {
    Failure { code: 4, message: format!("{flag}: {} cannot be written: {error}", path.display()) }
}
