//! Where a report goes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::super::Failure;
use crate::bench::Report;

/// Where the table and the JSON go, made sure of before anything is measured.
#[derive(Debug)]
pub(super) enum Output {
    /// The table only.
    Table,
    /// JSON on standard output, the table on standard error.
    Stdout,
    /// The table, and JSON in a file: written under another name first, so that an old result stays until there is a
    /// new one.
    File { path: PathBuf, part: PathBuf, file: File },
    /// The table, and JSON to something that is no regular file.
    Other { path: PathBuf, file: File },
}

impl Output {
    /// Opens what has to be written.
    pub(super) fn prepare(json: Option<PathBuf>) -> Result<Output, Failure> {
        let Some(path) = json else { return Ok(Output::Table) };
        if path == Path::new("-") {
            return Ok(Output::Stdout);
        }
        let fail = |cause| failure(&path, cause);
        match fs::metadata(&path) {
            Ok(there) if there.is_dir() => Err(fail(io::Error::from_raw_os_error(libc::EISDIR))),
            Ok(there) if !there.is_file() => {
                let file = File::options().write(true).open(&path).map_err(fail)?;
                Ok(Output::Other { path, file })
            }
            _ => {
                let mut part = path.clone().into_os_string();
                part.push(".part");
                let part = PathBuf::from(part);
                let file = File::create(&part).map_err(fail)?;
                Ok(Output::File { path, part, file })
            }
        }
    }

    /// Prints the table and writes the JSON.
    pub(super) fn write(mut self, table: &str, report: &Report) -> Result<(), Failure> {
        let mut json = serde_json::to_string_pretty(report).unwrap_or_default();
        json.push('\n');
        match &mut self {
            Output::Table => print(io::stdout(), table),
            Output::Stdout => {
                print(io::stderr(), table);
                io::stdout().write_all(json.as_bytes()).map_err(|e| failure(Path::new("-"), e))?;
            }
            Output::Other { path, file } => {
                print(io::stdout(), table);
                file.write_all(json.as_bytes()).map_err(|e| failure(path, e))?;
            }
            Output::File { path, part, file } => {
                print(io::stdout(), table);
                let written = file.write_all(json.as_bytes()).and_then(|()| fs::rename(&part, &path));
                written.map_err(|e| failure(path, e))?;
            }
        }
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Output::File { part, .. } = self {
            // Gone already if it was renamed.
            let _ = fs::remove_file(part);
        }
    }
}

/// A reader that has gone away does not make the measurement a failure.
fn print(mut to: impl Write, table: &str) {
    let _ = writeln!(to, "{table}");
}

fn failure(path: &Path, cause: io::Error) -> Failure {
    Failure { code: 4, message: format!("--json: {} cannot be written: {cause}", path.display()) }
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
