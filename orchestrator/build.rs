//! Builds the component, which the orchestrator includes in its executable.
//!
//! The component is built in `component-build` in the target folder, so that all profiles and checks share one
//! build of it. It cannot be built in the target folder itself: the outer cargo holds a lock there
//! until this script ends.

use std::env;
use std::ffi::OsStr;
use std::fs;
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
        .ok_or("the orchestrator's folder is not in a workspace")?;
    for input in ["src", "build.rs", "Cargo.toml", "Cargo.lock"] {
        // Relative paths stay correct if the workspace is moved.
        println!("cargo:rerun-if-changed=../{input}");
    }
    check_target()?;
    let out_folder = variable("OUT_DIR")?;
    let component_target = target_folder(&out_folder)?.join("component-build");
    let status = Command::new(variable("CARGO")?)
        .current_dir(&workspace)
        .args(["build", "--package", "prefix-tar", "--lib"])
        .args(["--profile", PROFILE, "--target", TARGET, "--target-dir"])
        .arg(&component_target)
        // These are for the native build: a linter in rustc's place, and rustc's flags.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .status()
        .map_err(|error| format!("cannot start cargo to build the component: {error}"))?;
    if !status.success() {
        return Err(format!(
            "cannot build the component for {TARGET}: cargo ended with {status}"
        ));
    }
    let built = component_target
        .join(TARGET)
        .join(PROFILE)
        .join("prefix_tar.wasm");
    // Each profile includes its own copy: a build of another profile may replace the shared file.
    let component = out_folder.join("component.wasm");
    fs::copy(&built, &component)
        .map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
    Ok(component)
}

/// The outer build's target folder, from `OUT_DIR`: `{target}/[{triple}/]{profile}/build/...`.
fn target_folder(out_folder: &Path) -> Result<PathBuf, String> {
    let above_profile = out_folder
        .ancestors()
        .find(|folder| folder.file_name() == Some(OsStr::new("build")))
        .and_then(|build| build.parent()?.parent())
        .ok_or_else(|| format!("{} is not in a target folder", out_folder.display()))?;
    // With `--target`, the target folder has a folder per triple.
    let triple = variable("TARGET")?;
    match above_profile.file_name() == Some(triple.as_os_str()) {
        true => above_profile.parent().map(Path::to_path_buf),
        false => Some(above_profile.to_path_buf()),
    }
    .ok_or_else(|| format!("{} is not in a target folder", out_folder.display()))
}

/// Checks that the component's target is installed. Cargo would only say that `core` is missing.
fn check_target() -> Result<(), String> {
    let rustc = variable("RUSTC")?;
    let printed = Command::new(&rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .map_err(|error| format!("cannot start {}: {error}", rustc.display()))?;
    let folder = PathBuf::from(String::from_utf8_lossy(&printed.stdout).trim());
    if printed.status.success() && folder.is_dir() {
        Ok(())
    } else {
        Err(format!(
            "cannot build the component: the target {TARGET} is not installed; run: rustup target add {TARGET}"
        ))
    }
}
