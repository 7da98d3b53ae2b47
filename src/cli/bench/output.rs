//! Where a report goes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::super::Failure;
use crate::bench::{Report, to_json};

/// Where the table, the JSON and the page go, made sure of before anything is measured.
#[derive(Debug)]
pub(super) struct Output {
    json: Json,
    html: Option<Sink>,
}

#[derive(Debug)]
enum Json {
    Nowhere,
    /// Standard output; the table then goes to standard error.
    Stdout,
    Sink(Sink),
}

/// A file to be written once.
#[derive(Debug)]
struct Sink {
    flag: &'static str,
    path: PathBuf,
    /// A regular file is written under another name first, so that an old result stays until there is a new one.
    part: Option<PathBuf>,
    file: File,
}

impl Output {
    /// Opens what has to be written.
    pub(super) fn prepare(json: Option<PathBuf>, html: Option<PathBuf>) -> Result<Output, Failure> {
        let json = match json {
            None => Json::Nowhere,
            Some(path) if path == Path::new("-") => Json::Stdout,
            Some(path) => Json::Sink(Sink::prepare("--json", path)?),
        };
        if html.as_deref() == Some(Path::new("-")) {
            return Err(Failure::usage("--html takes the name of a file, not -"));
        }
        Ok(Output { json, html: html.map(|path| Sink::prepare("--html", path)).transpose()? })
    }

    /// Prints the table and writes the files; `page` makes the HTML.
    pub(super) fn write(
        self,
        table: &str,
        report: &Report,
        page: impl Fn(&Report) -> String,
    ) -> Result<(), Failure> {
        match self.json {
            Json::Nowhere => print(io::stdout(), table),
            Json::Stdout => {
                print(io::stderr(), table);
                let written = io::stdout().write_all(to_json(report).as_bytes());
                written.map_err(|e| failure("--json", Path::new("-"), e))?;
            }
            Json::Sink(sink) => {
                print(io::stdout(), table);
                sink.write(&to_json(report))?;
            }
        }
        self.html.map_or(Ok(()), |sink| sink.write(&page(report)))
    }
}

impl Sink {
    fn prepare(flag: &'static str, path: PathBuf) -> Result<Sink, Failure> {
        let fail = |cause| failure(flag, &path, cause);
        match fs::metadata(&path) {
            Ok(there) if there.is_dir() => Err(fail(io::Error::from_raw_os_error(libc::EISDIR))),
            Ok(there) if !there.is_file() => {
                let file = File::options().write(true).open(&path).map_err(fail)?;
                Ok(Sink { flag, path, part: None, file })
            }
            _ => {
                let mut part = path.clone().into_os_string();
                part.push(".part");
                let part = PathBuf::from(part);
                let file = File::create(&part).map_err(fail)?;
                Ok(Sink { flag, path, part: Some(part), file })
            }
        }
    }

    fn write(mut self, text: &str) -> Result<(), Failure> {
        let rename = |_| self.part.as_ref().map_or(Ok(()), |part| fs::rename(part, &self.path));
        let written = self.file.write_all(text.as_bytes()).and_then(rename);
        written.map_err(|e| failure(self.flag, &self.path, e))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            // Gone already if it was renamed.
            let _ = fs::remove_file(part);
        }
    }
}

/// A reader that has gone away does not make the measurement a failure.
fn print(mut to: impl Write, table: &str) {
    let _ = writeln!(to, "{table}");
}

fn failure(flag: &str, path: &Path, cause: io::Error) -> Failure {
    Failure { code: 4, message: format!("{flag}: {} cannot be written: {cause}", path.display()) }
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
