//! Where the binaries of this workspace are, built when need be, and which Node runs its scripts.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

/// The folder with the binaries: `STACK_BIN_DIR` when set (make builds first and sets it), otherwise the folder this
/// process was built into, after a `cargo build` so that no test runs against yesterday's service.
///
/// # Errors
/// When they cannot be built.
pub async fn folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("STACK_BIN_DIR") {
        return Ok(PathBuf::from(folder));
    }
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let folder = program.parent().context("a program is in a folder")?;
    // Tests are one level deeper than the binaries.
    let folder = if folder.ends_with("deps") {
        folder.parent().unwrap_or(folder)
    } else {
        folder
    };
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build
        .args(["build", "--quiet", "--workspace", "--bins"])
        .current_dir(root());
    if folder.ends_with("release") {
        build.arg("--release");
    }
    let built = build
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await;
    if !built.context("cannot run cargo")?.success() {
        bail!("the services do not build");
    }
    Ok(folder.to_owned())
}

/// A command of Node's (`node`, `npm`): the one that `make setup` put into `target/tools/bin` where the machine's own was too old,
/// otherwise the machine's.
///
/// # Errors
/// When a folder in `PATH` has a colon in its name.
pub fn node_command(program: &str) -> Result<Command> {
    let machine = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(root().join("target/tools/bin")).chain(std::env::split_paths(&machine));
    let mut command = Command::new(program);
    // npm finds its node by PATH as well.
    command.env("PATH", std::env::join_paths(folders)?);
    Ok(command)
}

/// The root of this repository.
pub fn root() -> &'static Path {
    // This crate is two levels below it.
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap_or(Path::new("."))
}
