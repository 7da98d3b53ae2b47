//! `doorbell ctl`: switch the paths of a live disk, or resize it.

use std::path::PathBuf;

use clap::Args;

use super::disk_arg::parse_size;
use super::{Failure, print};
use crate::observe::control::{Client, InForce, Request, Resized};

/// Switch the notify path, complete path or moderation of a live disk, or resize it.
#[derive(Debug, Args)]
#[command(after_help = "\
notify=fast-mmio|mmio|exit, complete=auto|irqfd|signal-msi, moderate=auto|off|N:US. Requests in flight complete by the old or
the new path. A disk that was started with notify=pio can be switched to exit and back. INTx paths cannot be switched.

Grow or cut the disk's file or block device first. Then resize reads its size and tells the guest; resize size=SIZE uses
only the first SIZE bytes of it. The guest cannot reach the data behind a smaller size.")]
pub struct CtlArgs {
    /// The VM's control socket (run --control)
    socket: PathBuf,
    /// The disk: disk0, disk1, ...
    disk: String,
    /// What to change: notify=PATH, complete=PATH, moderate=HOW. Without changes, the current ones are printed. Or: resize
    /// [size=SIZE]
    #[arg(value_name = "KEY=VALUE")]
    changes: Vec<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Switches, and prints the present paths.
pub(super) fn run(args: CtlArgs) -> Result<u8, Failure> {
    if args.changes.first().is_some_and(|word| word == "resize") {
        return resize(args);
    }
    let (mut notify, mut complete, mut moderate) = (None, None, None);
    for change in &args.changes {
        let place = match change.split_once('=') {
            Some(("notify", path)) if notify.is_none() => (&mut notify, path),
            Some(("complete", path)) if complete.is_none() => (&mut complete, path),
            Some(("moderate", setting)) if moderate.is_none() => (&mut moderate, setting),
            Some((key @ ("notify" | "complete" | "moderate"), _)) => {
                return Err(Failure::usage(format!("{key} is given twice; leave one out")));
            }
            _ => {
                return Err(Failure::usage(format!(
                    "{change}: use notify=PATH, complete=PATH or moderate=HOW, or `resize`"
                )));
            }
        };
        *place.0 = Some(place.1.to_string());
    }
    let request = Request::Switch { disk: args.disk, notify, complete, moderate };
    let now: InForce = Client::connect(&args.socket)?.ask(request)?;
    let text = match args.json {
        true => format!("{}\n", serde_json::json!(now)),
        false => format!(
            "{}: notify={} complete={} moderate={}\n",
            now.disk, now.notify, now.complete, now.moderate
        ),
    };
    print(&text).map(|()| 0)
}

/// Resizes the disk, and prints its sizes.
fn resize(args: CtlArgs) -> Result<u8, Failure> {
    let size = match &args.changes[1..] {
        [] => None,
        [size] => Some(size.strip_prefix("size=").and_then(parse_size).filter(|&size| size > 0).ok_or_else(
            || Failure::usage(format!("{size}: use size=SIZE, bytes or a number with K, M, G or T")),
        )?),
        _ => {
            return Err(Failure::usage("resize takes at most one argument, size=SIZE, and no other changes"));
        }
    };
    let request = Request::Resize { disk: args.disk, size };
    let now: Resized = Client::connect(&args.socket)?.ask(request)?;
    let text = match args.json {
        true => format!("{}\n", serde_json::json!(now)),
        false => format!("{}: {} bytes (before: {})\n", now.disk, now.size, now.before),
    };
    print(&text).map(|()| 0)
}
