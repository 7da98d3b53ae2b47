//! `doorbell completions` and `doorbell man`: made from the flags themselves.

use clap::{Args, Command};

use super::{Failure, print};

/// Print a shell's completions for doorbell
#[derive(Debug, Args)]
#[command(after_help = "  doorbell completions bash >/etc/bash_completion.d/doorbell")]
pub struct CompletionsArgs {
    /// Shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Print the manual page of doorbell, or of one of its commands
#[derive(Debug, Args)]
#[command(after_help = "  doorbell man bench | man -l -")]
pub struct ManArgs {
    /// Command, as in bench, or bench diff
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

/// Prints the completions; returns the exit code.
pub(super) fn completions(args: &CompletionsArgs, mut cli: Command) -> Result<u8, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut cli, "doorbell", &mut text);
    print(&String::from_utf8_lossy(&text)).map(|()| 0)
}

/// Prints the page; returns the exit code.
pub(super) fn man(args: &ManArgs, mut cli: Command) -> Result<u8, Failure> {
    // Gives subcommands their full names.
    cli.build();
    let mut command = &cli;
    for word in &args.command {
        command = command.find_subcommand(word).ok_or_else(|| {
            let all: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
            Failure::usage(format!("there is no command {word}; use one of {}", all.join(", ")))
        })?;
    }
    let mut text = Vec::new();
    let page = clap_mangen::Man::new(command.clone()).source(concat!("doorbell ", env!("DOORBELL_VERSION")));
    page.render(&mut text).map_err(|e| Failure { code: 1, message: format!("cannot make the page: {e}") })?;
    print(&String::from_utf8_lossy(&text)).map(|()| 0)
}
