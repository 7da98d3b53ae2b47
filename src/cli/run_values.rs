//! Values of flags of `doorbell run`.

use super::disk_arg::parse_size;
use crate::machine::layout::{MIB, RAM_MAX, RAM_MIN};
use crate::machine::{Console, CpuModel, HugePage};

pub(super) fn parse_memory(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text).ok_or("use a number with M or G: 512M, 2G")?;
    let plain = text.bytes().all(|c| c.is_ascii_digit());
    if plain && bytes < RAM_MIN {
        return Err(format!("the unit is missing: did you mean {text}M? {text} alone is a number of bytes"));
    }
    if !(RAM_MIN..=RAM_MAX).contains(&bytes) || !bytes.is_multiple_of(MIB) {
        return Err("use 128M to 8G, in whole MiB".into());
    }
    Ok(bytes)
}

pub(super) fn parse_cpu(text: &str) -> Result<CpuModel, &'static str> {
    text.parse().map_err(|_| "use masked or passthrough")
}

pub(super) fn parse_huge_page(text: &str) -> Result<HugePage, String> {
    match parse_size(text) {
        Some(size) if size == HugePage::TwoMib.bytes() => Ok(HugePage::TwoMib),
        Some(size) if size == HugePage::OneGib.bytes() => Ok(HugePage::OneGib),
        _ => Err("use 2M or 1G".into()),
    }
}

pub(super) fn parse_console(text: &str) -> Result<Console, String> {
    match text.split_once('=') {
        None if text == "stdio" => Ok(Console::Stdio),
        None if text == "off" => Ok(Console::Off),
        Some(("file", path)) if !path.is_empty() => Ok(Console::File(path.into())),
        _ => Err("use stdio, file=FILE or off".into()),
    }
}
