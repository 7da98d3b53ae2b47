//! `doorbell guest`: a command in the Linux guest.

use clap::{ArgMatches, Args};

use super::Failure;
use super::config_file::with_file;
use super::run::{RunArgs, run_command};
use crate::bench::linux::command::Command;

/// Run a command in the Linux guest
#[derive(Debug, Args)]
#[command(after_help = "  \
  doorbell guest -- uname -a
  doorbell guest --disk backend=mem,size=1G,serial=data -- sh -c 'mkfs.ext4 -q $(disk_by_serial data)'
  doorbell guest --cpus 2 --disk path=disk.img -- fio --name=x --filename=/dev/vda --rw=randread --direct=1

The guest is the one that guest-images/linux/build makes (busybox, fio, mkfs.ext4), or another one with --kernel and
--initrd, whose init runs /job/run. The command's standard output and standard error both go to standard output.
The exit code is the command's, or that of doorbell run if the guest ended before the command did.")]
pub struct GuestArgs {
    #[command(flatten)]
    run: RunArgs,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs it; returns its exit code.
pub(super) fn guest(args: GuestArgs, given: &ArgMatches) -> Result<u8, Failure> {
    let Some(run) = with_file(args.run, given)? else { return Ok(0) };
    if run.fio.is_some() {
        return Err(Failure::usage("--fio is for doorbell run; here, the command is what runs"));
    }
    run_command(run, Command::Words(args.command))
}
