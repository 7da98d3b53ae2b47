//! `doorbell ctl`: switch the paths of a live disk.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, print};
use crate::observe::control::{Client, InForce, Request};

/// Switch the notify path, complete path or moderation of a live disk.
#[derive(Debug, Args)]
#[command(after_help = "\
notify=fast-mmio|mmio|exit, complete=auto|irqfd|signal-msi, moderate=auto|off|N:US. Requests in flight complete by the old path or the new one.
A disk that was started with notify=pio can be switched to exit and back; INTx paths cannot be switched.")]
pub struct CtlArgs {
    /// The VM's control socket (run --control)
    socket: PathBuf,
    /// The disk: disk0, disk1, ...
    disk: String,
    /// What to change: notify=PATH, complete=PATH, moderate=HOW; without any, the present ones are printed
    #[arg(value_name = "KEY=VALUE")]
    changes: Vec<String>,
    /// Print the present paths as JSON
    #[arg(long)]
    json: bool,
}

/// Switches, and prints the present paths.
pub(super) fn run(args: CtlArgs) -> Result<u8, Failure> {
    let (mut notify, mut complete, mut moderate) = (None, None, None);
    for change in &args.changes {
        let place = match change.split_once('=') {
            Some(("notify", path)) if notify.is_none() => (&mut notify, path),
            Some(("complete", path)) if complete.is_none() => (&mut complete, path),
            Some(("moderate", setting)) if moderate.is_none() => (&mut moderate, setting),
            Some((key @ ("notify" | "complete" | "moderate"), _)) => {
                return Err(Failure::usage(format!("{key} is given twice")));
            }
            _ => {
                return Err(Failure::usage(format!(
                    "{change}: use notify=PATH, complete=PATH or moderate=HOW"
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
