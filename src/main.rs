//! The door: see [`doorbell::cli`].

fn main() -> std::process::ExitCode {
    doorbell::cli::main()
}
