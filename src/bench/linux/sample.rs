//! One step as the guest and the host saw it.

use std::collections::BTreeMap;

use super::counts::Counts;
use super::fio::{self, Measured};
use super::marker::{BEGIN, END, EXITS_PER_MARK, Mark};
use super::script::serial;

/// The guest's results: files by name.
pub struct Results<'a> {
    files: BTreeMap<String, &'a [u8]>,
}

impl<'a> Results<'a> {
    /// Files as [`super::archive::untar`] finds them.
    pub fn new(files: Vec<(String, &'a [u8])>) -> Results<'a> {
        Results { files: files.into_iter().collect() }
    }

    /// A file's first line.
    pub fn line(&self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        text.lines().next().map(|line| line.trim().to_string())
    }

    /// A file as text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.files.get(name).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// fio's output in a file; `reads_back` as for [`fio::parse`].
    ///
    /// # Errors
    /// It is not there, or fio failed; a clause.
    pub fn fio(&self, name: &str, reads_back: bool) -> Result<Measured, String> {
        let json = self.files.get(name).ok_or("fio wrote no output")?;
        fio::parse(json, reads_back).map_err(|e| format!("fio's output: {e}"))
    }
}

/// One step, measured from both sides.
#[derive(Debug)]
pub struct Sample {
    /// By fio.
    pub fio: Measured,
    /// By the host.
    pub counts: Counts,
    /// By the guest.
    pub guest_interrupts: Option<u64>,
}

impl Sample {
    /// What fio alone has measured.
    pub fn of_fio(fio: Measured) -> Sample {
        Sample { fio, counts: Counts::default(), guest_interrupts: None }
    }
}

/// What the guest and the host counted in a step of ours, on the disk of `path`.
///
/// # Errors
/// The guest did not finish it, or its result cannot be read: a clause.
pub fn sample(
    number: usize,
    path: usize,
    reads_back: bool,
    results: &Results,
    marks: &[Mark],
) -> Result<Sample, String> {
    let find = |what| {
        let found = marks.iter().find(|mark| (usize::from(mark.step), mark.what) == (number, what));
        found.and_then(|mark| mark.counts.get(path)).ok_or("the guest did not reach it")
    };
    let mut counts = find(END)?.since(find(BEGIN)?);
    // The cost of the second mark itself.
    counts.exits_to_user = counts.exits_to_user.saturating_sub(EXITS_PER_MARK);
    counts.exits = counts.exits.map(|exits| exits.saturating_sub(EXITS_PER_MARK));
    let of_step = |name: &str| format!("{number}.{name}");
    let interrupts = interrupts_between(results, &serial(path), of_step("before"), of_step("after"));
    Ok(Sample { fio: results.fio(&of_step("json"), reads_back)?, counts, guest_interrupts: interrupts })
}

/// What a reference VMM's guest left of one step, with what KVM counted meanwhile.
///
/// # Errors
/// Its result cannot be read: a clause.
pub fn guest_sample(results: &Results, reads_back: bool, exits: Option<u64>) -> Result<Sample, String> {
    let interrupts = interrupts_between(results, "device", "fio.before".into(), "fio.after".into());
    let counts = Counts { exits, ..Counts::default() };
    Ok(Sample { fio: results.fio("fio.json", reads_back)?, counts, guest_interrupts: interrupts })
}

fn interrupts_between(results: &Results, device: &str, before: String, after: String) -> Option<u64> {
    let device = results.line(device)?;
    let count = |name: String| {
        let text = results.text(&name)?;
        Some(match device.strip_prefix("irqs ") {
            Some(numbers) => numbered_interrupts(&text, numbers),
            None => disk_interrupts(&text, &device),
        })
    };
    Some(count(after)?.saturating_sub(count(before)?))
}

/// The interrupts of a virtio device in the text of /proc/interrupts: lines that end in "virtio1-req.0", or in "virtio1"
/// itself without MSI-X, but not the configuration's.
pub(super) fn disk_interrupts(text: &str, device: &str) -> u64 {
    interrupts(text, |line| {
        line.split([' ', ',']).any(|word| {
            let rest = word.strip_prefix(device);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-') && rest != "-config")
        })
    })
}

/// The interrupts with these numbers in the text of /proc/interrupts.
fn numbered_interrupts(text: &str, numbers: &str) -> u64 {
    interrupts(text, |line| {
        line.split_once(':').is_some_and(|(label, _)| numbers.split(' ').any(|number| number == label.trim()))
    })
}

fn interrupts(text: &str, wanted: impl Fn(&str) -> bool) -> u64 {
    let mut lines = text.lines();
    let cpus = lines.next().unwrap_or("").split_whitespace().count();
    let count = |line: &str| {
        let numbers = line.split_whitespace().skip(1).take(cpus);
        numbers.filter_map(|number| number.parse::<u64>().ok()).sum::<u64>()
    };
    lines.filter(|line| wanted(line)).map(count).sum()
}
