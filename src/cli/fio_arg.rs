//! `--fio FILE`: a job file for fio.

use std::path::Path;

use super::Failure;
use crate::bench::linux::fio_file::{Section, sections};

/// The file's text and its sections.
pub(super) fn read_fio(path: &Path) -> Result<(String, Vec<Section>), Failure> {
    let fail = |why: String| Failure { code: 4, message: format!("--fio {}: {why}", path.display()) };
    let text = std::fs::read_to_string(path).map_err(|e| fail(format!("cannot be read: {e}")))?;
    let sections = sections(&text).map_err(|e| fail(e.to_string()))?;
    Ok((text, sections))
}
