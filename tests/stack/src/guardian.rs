//! One run of the stack in this process: its scratch folder, and the guardian that ends everything it started.
//!
//! The guardian is a small shell process (see `guardian.sh`) that holds the read end of a pipe. When this process ends,
//! however it ends, the pipe closes and the guardian kills what is left. Nothing here ever ends a process that this run
//! did not start.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};

/// The environment variable that marks every process of a run.
pub const MARK: &str = "STACK_RUN";

/// Folders of earlier runs are kept this long, for whoever wants to read their logs.
const KEEP_LOGS: Duration = Duration::from_secs(24 * 60 * 60);

const FOLDER_PREFIX: &str = "homelab-stack-";

/// This process's run.
#[derive(Debug)]
pub struct Run {
    id: String,
    folder: PathBuf,
    pipe: Mutex<Option<ChildStdin>>,
    guardian: Mutex<Child>,
}

/// The run of this process; the first call makes the scratch folder and starts the guardian.
///
/// # Errors
/// When the folder cannot be made or the guardian cannot be started.
pub fn run() -> Result<&'static Run> {
    static RUN: OnceLock<std::result::Result<Run, String>> = OnceLock::new();
    RUN.get_or_init(|| Run::begin().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow!("{error}"))
}

impl Run {
    fn begin() -> Result<Run> {
        let parent = std::env::var_os("STACK_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
        remove_old_runs(&parent);
        // The process id alone would be met again after a reboot; the time alone by two tests started together.
        let since_epoch = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let id = format!("{}-{}", since_epoch.as_millis(), std::process::id());
        let folder = parent.join(format!("{FOLDER_PREFIX}{id}"));
        for part in [folder.clone(), folder.join("logs"), folder.join("data")] {
            fs::create_dir(&part).with_context(|| format!("cannot make {}", part.display()))?;
            // PostgreSQL runs as another user when we are root, and has to reach its folder below this one.
            fs::set_permissions(&part, fs::Permissions::from_mode(0o755))?;
        }

        let log = fs::File::create(folder.join("logs").join("guardian.log"))?;
        let keep = std::env::var_os("STACK_KEEP").is_some();
        let data = if keep { PathBuf::new() } else { folder.join("data") };
        let mut guardian = Command::new("sh")
            .args(["-c", include_str!("guardian.sh"), "guardian.sh", &id])
            .arg(data)
            .env_remove(MARK)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the guardian (sh)")?;
        let pipe = Mutex::new(guardian.stdin.take());
        Ok(Run {
            id,
            folder,
            pipe,
            guardian: Mutex::new(guardian),
        })
    }

    /// What tells this run from every other.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The run's scratch folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where each part writes its log.
    pub fn log(&self, part: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{part}.log"))
    }

    /// A folder for a part's data, removed when the run ends unless `STACK_KEEP` is set. Made when absent.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn data(&self, part: &str) -> Result<PathBuf> {
        let folder = self.folder.join("data").join(part);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }

    /// The mark every process of this run must carry in its environment.
    pub fn mark(&self) -> (&'static str, &str) {
        (MARK, &self.id)
    }

    /// Puts a process group into the guardian's care.
    pub fn guard(&self, group: u32) {
        self.tell("group", group);
    }

    /// Takes a process group that has ended out of it, so that its id may be used by somebody else.
    pub fn forget(&self, group: u32) {
        self.tell("forget", group);
    }

    fn tell(&self, verb: &str, group: u32) {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipe) = pipe.as_mut()
            && let Err(error) = writeln!(pipe, "{verb} {group}")
        {
            eprintln!("stack: the guardian does not answer ({error}); a crash may leave processes running");
        }
    }

    /// Ends the run: whatever is still running is stopped, the data folder is removed. Bounded by the guardian's own waits.
    pub fn end(&self) {
        drop(self.pipe.lock().unwrap_or_else(PoisonError::into_inner).take());
        let _ended = self
            .guardian
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .wait();
    }
}

/// Removes the folders of runs that ended a day ago or earlier; one that cannot be removed is somebody else's.
fn remove_old_runs(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(FOLDER_PREFIX);
        let logs = entry.path().join("logs");
        let age = fs::metadata(&logs)
            .and_then(|logs| logs.modified())
            .ok()
            .and_then(|at| at.elapsed().ok());
        if ours && age.is_some_and(|age| age > KEEP_LOGS) {
            let _kept = fs::remove_dir_all(entry.path());
        }
    }
}
