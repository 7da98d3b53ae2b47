use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use serde::{Deserialize, Serialize};

/// The lessons that a reader has answered rightly, by their titles: numbers may change between versions.
#[derive(Debug, Default)]
pub struct Progress {
    file: Option<PathBuf>,
    done: BTreeSet<String>,
}

#[derive(Serialize, Deserialize)]
struct State {
    schema: String,
    done: BTreeSet<String>,
}

const SCHEMA: &str = "doorbell-lessons/1";

/// Why progress could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum ProgressError {
    /// The file cannot be read or written.
    #[error("progress in {}: {source}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} is not doorbell's list of lessons done; move it away", file.display())]
    Foreign {
        /// Which.
        file: PathBuf,
    },
}

impl Progress {
    /// The reader's: `$XDG_STATE_HOME/doorbell/lessons.json`, or below `~/.local/state`. Without a home nothing is kept.
    ///
    /// # Errors
    /// There is a file, and it cannot be used.
    pub fn of_the_reader() -> Result<Progress, ProgressError> {
        // Relative paths are to be ignored (XDG Base Directory Specification).
        let set = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")));
        match state {
            Some(state) => Progress::read(&state.join("doorbell").join("lessons.json")),
            None => Ok(Progress::default()),
        }
    }

    /// What `file` says; nothing yet if there is none.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn read(file: &Path) -> Result<Progress, ProgressError> {
        let done = match fs::read(file) {
            Ok(bytes) => match serde_json::from_slice::<State>(&bytes) {
                Ok(state) if state.schema == SCHEMA => state.done,
                _ => return Err(ProgressError::Foreign { file: file.into() }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(source) => return Err(ProgressError::File { file: file.into(), source }),
        };
        Ok(Progress { file: Some(file.into()), done })
    }

    /// Whether the lesson of this title is done.
    pub fn is_done(&self, title: &str) -> bool {
        self.done.contains(title)
    }

    /// The lesson of this title is done from now on.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn done(&mut self, title: &str) -> Result<(), ProgressError> {
        let Some(file) = self.file.clone().filter(|_| self.done.insert(title.into())) else { return Ok(()) };
        let failed = |source| ProgressError::File { file: file.clone(), source };
        let state = State { schema: SCHEMA.into(), done: self.done.clone() };
        let text = serde_json::to_string_pretty(&state).map_err(io::Error::from).map_err(failed)?;
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        // A new file beside it replaces it, so that an interruption loses nothing.
        let fresh = file.with_extension(format!("{}.part", std::process::id()));
        fs::write(&fresh, text + "\n").and_then(|()| fs::rename(&fresh, &file)).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_kept_and_a_foreign_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("doorbell/lessons.json");
        let mut progress = Progress::read(&file).unwrap();
        assert!(!progress.is_done("A"));
        progress.done("A").unwrap();
        progress.done("A").unwrap();
        let again = Progress::read(&file).unwrap();
        assert!(again.is_done("A") && !again.is_done("B"));
        assert_eq!(
            fs::read_dir(directory.path().join("doorbell")).unwrap().count(),
            1,
            "nothing is left beside it"
        );
        fs::write(&file, "mine").unwrap();
        assert!(matches!(Progress::read(&file), Err(ProgressError::Foreign { .. })));
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    }
}
