//! Builds the component and hands its path to the orchestrator, which carries it.
//!
//! The component has its own target folder: cargo holds a lock on the one that this build is using.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const TARGET: &str = "wasm32-wasip2";
const PROFILE: &str = "component";

fn main() -> ExitCode {
    match build() {
        Ok(component) => {
            println!(
                "cargo:rustc-env=PREFIX_TAR_COMPONENT={}",
                component.display()
            );
            ExitCode::SUCCESS
        }
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn variable(name: &str) -> Result<PathBuf, String> {
    env::var_os(name)
        .map(PathBuf::from)
        .ok_or_else(|| format!("cargo did not set {name}"))
}

fn build() -> Result<PathBuf, String> {
    let workspace = variable("CARGO_MANIFEST_DIR")?
        .parent()
        .map(Path::to_path_buf)
        .ok_or("the orchestrator has no workspace around it")?;
    for input in ["src", "build.rs", "Cargo.toml", "Cargo.lock"] {
        // Relative to this package, so that a tree which was moved is not watched where it was.
        println!("cargo:rerun-if-changed=../{input}");
    }
    check_target()?;
    let target_folder = variable("OUT_DIR")?.join("component");
    let status = Command::new(variable("CARGO")?)
        .current_dir(&workspace)
        .args(["build", "--package", "prefix-tar", "--lib"])
        .args(["--profile", PROFILE, "--target", TARGET, "--target-dir"])
        .arg(&target_folder)
        // What is meant for the native build (a linter in rustc's place, its flags) is not meant for this one.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .status()
        .map_err(|error| format!("cargo could not be started to build the component: {error}"))?;
    if !status.success() {
        return Err(format!(
            "the component could not be built for {TARGET} ({status})"
        ));
    }
    Ok(target_folder
        .join(TARGET)
        .join(PROFILE)
        .join("prefix_tar.wasm"))
}

/// Cargo's own message for a missing target is about a missing `core`; this one says what to do.
fn check_target() -> Result<(), String> {
    let rustc = variable("RUSTC")?;
    let printed = Command::new(&rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .map_err(|error| format!("{} could not be started: {error}", rustc.display()))?;
    let folder = PathBuf::from(String::from_utf8_lossy(&printed.stdout).trim());
    if printed.status.success() && folder.is_dir() {
        Ok(())
    } else {
        Err(format!(
            "the target {TARGET} is not installed, which the component is built for; run: rustup target add {TARGET}"
        ))
    }
}
