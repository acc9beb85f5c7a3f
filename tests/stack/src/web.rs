//! The built web page, built when it is missing or older than its sources.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use crate::binaries::{node_command, root};
use anyhow::{Context, Result, bail};

/// The folder of the page, which is built then.
///
/// # Errors
/// When its packages are missing or it does not build.
pub async fn built() -> Result<PathBuf> {
    let folder = root().join("cluster").join("heatpump-web");
    let dist = folder.join("dist");
    let built = modified(&dist.join("index.html"));
    let changed = [
        "src",
        "public",
        "index.html",
        "package-lock.json",
        "vite.config.ts",
    ]
    .iter()
    .filter_map(|part| newest(&folder.join(part)))
    .max();
    if built.is_some() && built >= changed {
        return Ok(folder);
    }
    if !folder.join("node_modules").is_dir() {
        bail!("the web page's packages are missing: npm ci --prefix cluster/heatpump-web, or run make setup");
    }
    eprintln!("stack: building the web page");
    let output = node_command("npm")?
        .args(["run", "--silent", "build", "--prefix"])
        .arg(&folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("npm is missing: run make setup")?;
    if !output.status.success() {
        bail!(
            "the web page does not build: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(folder)
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().ok()?.modified().ok()
}

/// The time of the newest file in a folder; the folder's own time tells of files that were removed.
fn newest(path: &Path) -> Option<SystemTime> {
    let mut newest = modified(path)?;
    if let Ok(entries) = path.read_dir() {
        for time in entries.flatten().filter_map(|entry| self::newest(&entry.path())) {
            newest = newest.max(time);
        }
    }
    Some(newest)
}
