//! The outputs of a report.

use std::io::IsTerminal;
use std::path::PathBuf;

use super::super::out_file::OutFile;
use super::super::out_place::FilesInUse;
use super::super::{Failure, print};
use crate::bench::{Report, to_json};
use crate::host::log;

/// The outputs for JSON and HTML, opened before anything is measured.
#[derive(Debug)]
pub(super) struct Output {
    json: Option<OutFile>,
    html: Option<OutFile>,
}

impl Output {
    /// Opens the outputs; `files` holds the files that the bench reads.
    pub(super) fn prepare(
        json: Option<PathBuf>,
        html: Option<PathBuf>,
        files: &mut FilesInUse,
    ) -> Result<Output, Failure> {
        let mut open = |flag, path: Option<PathBuf>| {
            let open = |path: PathBuf| files.output(flag, &path).and_then(|()| OutFile::open(flag, &path));
            path.map(open).transpose()
        };
        Ok(Output { json: open("--json", json)?, html: open("--html", html)? })
    }

    /// Whether the table goes to a terminal whose user has nothing against bold letters (https://no-color.org).
    pub(super) fn prints_on_terminal(&self) -> bool {
        let taken = [&self.json, &self.html].into_iter().flatten().any(OutFile::is_stdout);
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        !taken && !dumb && !set("NO_COLOR") && std::io::stdout().is_terminal()
    }

    /// Writes the files, then prints the table; `page` makes the HTML.
    pub(super) fn write(
        self,
        table: &str,
        report: &Report,
        page: impl Fn(&Report) -> String,
    ) -> Result<(), Failure> {
        let taken = [&self.json, &self.html].into_iter().flatten().any(OutFile::is_stdout);
        let json = self.json.map_or(Ok(()), |out| out.write_text(&to_json(report)));
        let html = self.html.map_or(Ok(()), |out| out.write_text(&page(report)));
        // Print the table even if a file failed: the measurement took minutes.
        let printed = if taken {
            log::say(format_args!("{table}"));
            Ok(())
        } else {
            print(&format!("{table}\n"))
        };
        json.and(html).and(printed)
    }
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
