//! `doorbell inspect`: shows the tables in KVM and in the devices of a live VM.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::inspect_text::text;
use super::out_file::BlockingWriter;
use super::{Failure, printed};
use crate::host::log;
use crate::observe::VmView;
use crate::observe::control::{Client, ControlError, Request};

/// Show the state of a live VM: GSI routes, doorbells, vectors, queues, threads, guest RAM, passed-through devices.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  doorbell inspect /tmp/vm\n  doorbell inspect /tmp/vm queues --watch\n  doorbell inspect /tmp/vm routes --wide"
)]
pub struct InspectArgs {
    /// The VM's control socket (run --control)
    socket: PathBuf,
    /// What to show
    #[arg(default_value = "all", value_parser = ["routes", "doorbells", "vectors", "queues", "threads", "memory", "vfio", "all"])]
    section: String,
    /// Print JSON (schema: docs/inspect.schema.json); with --watch, one line per second
    #[arg(long)]
    json: bool,
    /// Every column, and every route: otherwise columns with nothing but zeros are left out, and the pins of each interrupt
    /// controller share a line
    #[arg(long)]
    wide: bool,
    /// Show it again every second until the VM ends
    #[arg(long)]
    watch: bool,
}

/// Prints the tables, once or until the VM ends.
pub(super) fn run(args: InspectArgs) -> Result<u8, Failure> {
    let mut client = Client::connect(&args.socket)?;
    let mut look = || client.ask::<VmView>(Request::Inspect { section: args.section.clone() });
    let print = |view: &VmView| match (args.json, args.watch) {
        (true, false) => serde_json::to_string_pretty(view).map(|text| text + "\n").unwrap_or_default(),
        (true, true) => serde_json::to_string(view).map(|text| text + "\n").unwrap_or_default(),
        (false, _) => text(view, args.wide),
    };
    let stdout = std::io::stdout();
    let mut out = BlockingWriter(stdout.as_fd());
    let first = print(&look()?);
    if !args.watch {
        return printed(out.write_all(first.as_bytes())).map(|()| 0);
    }
    // Cursor home, then clear to the end of the screen: this does not flicker.
    let begin = if stdout.is_terminal() && !args.json { "\x1b[H\x1b[J" } else { "" };
    let mut text = first;
    loop {
        let written = write!(out, "{begin}{text}");
        if written.is_err() {
            return printed(written).map(|()| 0);
        }
        std::thread::sleep(Duration::from_secs(1));
        text = match look() {
            Ok(view) => print(&view),
            Err(ControlError::Gone(path)) => {
                log::say(format_args!("doorbell: the VM behind {} has ended", path.display()));
                return Ok(0);
            }
            // Not `Gone`: the VM may still be there, so this is a failure.
            Err(error) => return Err(error.into()),
        };
    }
}
