//! Compiles the probe guest (guest-images/probe) with the same rustc as doorbell, for the same target: no extra
//! toolchain, no extra tool. The image is embedded by `src/bench/mod.rs`.

use std::path::PathBuf;
use std::process::Command;

/// Compiler and linker flags, with the reason for each group.
const FLAGS: &[&str] = &[
    "--edition=2024",
    "--crate-type=bin",
    "--crate-name=probe",
    "--target=x86_64-unknown-linux-gnu",
    // The image runs where it is linked, without a loader and without unwinding.
    "-Cpanic=abort",
    "-Crelocation-model=static",
    "-Ccode-model=small",
    "-Cno-redzone=yes",
    "-Copt-level=2",
    "-Ccodegen-units=1",
    "-Cstrip=symbols",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-static",
    "-Clink-arg=-no-pie",
    "-Clink-arg=-Wl,--build-id=none",
    "-Clink-arg=-Wl,-z,max-page-size=4096",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=guest-images/probe");
    for file in ["probe_abi.rs", "probe_map.rs", "probe_words.rs"] {
        println!("cargo::rerun-if-changed=src/bench/{file}");
    }
    version();
    let root = PathBuf::from(env("CARGO_MANIFEST_DIR")).join("guest-images/probe");
    let image = PathBuf::from(env("OUT_DIR")).join("probe.elf");
    let output = Command::new(env("RUSTC"))
        .args(FLAGS)
        .arg(format!("-Clink-arg=-Wl,-T,{}", root.join("link.ld").display()))
        .arg("-o")
        .arg(&image)
        .arg(root.join("main.rs"))
        .output();
    let output = output.unwrap_or_else(|e| panic!("probe guest: {} does not start: {e}", env("RUSTC")));
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "probe guest did not build:\n{messages}");
    for line in messages.lines().filter(|line| !line.trim().is_empty()) {
        println!("cargo::warning=probe guest: {line}");
    }
}

/// DOORBELL_VERSION: the package's, with the commit where there is a repository.
fn version() {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let version = env("CARGO_PKG_VERSION");
    match git(&["rev-parse", "--short=12", "HEAD"]) {
        Some(commit) => println!("cargo::rustc-env=DOORBELL_VERSION={version} ({commit})"),
        None => println!("cargo::rustc-env=DOORBELL_VERSION={version}"),
    }
    // Each commit adds a line to it. Without one, as in a package, there is nothing to watch.
    if let Some(log) =
        git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| std::path::Path::new(log).exists())
    {
        println!("cargo::rerun-if-changed={log}");
    }
}

/// A variable that cargo always sets for build scripts.
fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: build with cargo"))
}
