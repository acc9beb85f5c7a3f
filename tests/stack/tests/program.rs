//! The `stack` program itself, with every real part: what it prints, what it exits with, and that nothing is left.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The guardian's own waits add up to less than this.
const GONE_WITHIN: Duration = Duration::from_secs(20);

struct Program {
    child: Child,
    folder: PathBuf,
    said: std::thread::JoinHandle<String>,
}

/// Starts the program and waits until it says where its logs are.
fn start(arguments: &[&str], path: Option<&Path>) -> Result<Program> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stack"));
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let mut child = command.spawn()?;
    let mut stderr = BufReader::new(child.stderr.take().context("piped")?);
    let mut first = String::new();
    stderr.read_line(&mut first)?;
    let logs = first
        .trim()
        .strip_prefix("stack: logs in ")
        .with_context(|| format!("said {first}"))?;
    let folder = Path::new(logs)
        .parent()
        .context("logs are in a folder")?
        .to_owned();
    let said = std::thread::spawn(move || {
        let mut text = first;
        let _until_it_ends = stderr.read_to_string(&mut text);
        text
    });
    Ok(Program { child, folder, said })
}

impl Program {
    /// Reads standard output until `line`.
    fn wait_for_line(&mut self, line: &str) -> Result<()> {
        let stdout = self.child.stdout.as_mut().context("piped")?;
        for found in BufReader::new(stdout).lines() {
            if found? == line {
                return Ok(());
            }
        }
        anyhow::bail!("it ended without the line {line}")
    }

    /// Waits for the end, and gives the exit status, standard output and standard error.
    fn end(mut self) -> Result<(ExitStatus, String, String)> {
        let mut printed = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut printed)?;
        }
        let status = self.child.wait()?;
        self.nothing_is_left()?;
        let said = self
            .said
            .join()
            .map_err(|_| anyhow::anyhow!("the reader panicked"))?;
        Ok((status, printed, said))
    }

    fn nothing_is_left(&self) -> Result<()> {
        let name = self
            .folder
            .file_name()
            .and_then(|name| name.to_str())
            .context("a folder with a name")?;
        let mark = format!("STACK_RUN={}", name.trim_start_matches("homelab-stack-"));
        let begin = Instant::now();
        while begin.elapsed() < GONE_WITHIN {
            if marked(&mark).is_empty() && !self.folder.join("data").exists() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        anyhow::bail!(
            "left running: {:?}, data left: {}",
            marked(&mark),
            self.folder.join("data").exists()
        )
    }
}

/// Processes that carry the mark of a run.
fn marked(mark: &str) -> Vec<String> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let carries = |folder: &Path| {
        let environment = std::fs::read(folder.join("environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == mark.as_bytes())
    };
    processes
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| carries(path))
        .map(|path| path.display().to_string())
        .collect()
}

#[test]
fn smoke_prints_one_line_and_leaves_nothing() -> Result<()> {
    let (status, printed, said) = start(&["smoke"], None)?.end()?;
    ensure!(status.success(), "{said}");
    ensure!(printed.lines().count() == 1, "one line and no more: {printed}");
    let line: Value = serde_json::from_str(&printed)?;
    ensure!(line["smoke"] == "ok", "{line}");
    for latency in ["device_to_ws_ms", "device_to_api_ms"] {
        ensure!(line[latency].as_f64().is_some_and(|value| value > 0.0), "{line}");
    }
    Ok(())
}

#[test]
fn run_sets_the_environment_and_exits_with_the_code_of_the_command() -> Result<()> {
    let script =
        "echo $STACK_MQTT_PORT $STACK_API_URL $STACK_WS_URL $STACK_ISSUER_URL $STACK_DEMO_USER; exit 7";
    let (status, printed, said) = start(
        &["run", "--no-web", "--agents", "2", "--", "sh", "-c", script],
        None,
    )?
    .end()?;
    ensure!(status.code() == Some(7), "{status}: {said}");
    ensure!(printed.split_whitespace().count() == 5, "{printed}");
    ensure!(said.contains("edge-agent-p1 ready"), "{said}");
    Ok(())
}

#[test]
fn ctrl_c_takes_everything_down() -> Result<()> {
    let mut program = start(
        &["run", "--no-web", "--", "sh", "-c", "echo up; sleep 1000"],
        None,
    )?;
    program.wait_for_line("up")?;
    kill_process(
        Pid::from_raw(program.child.id().cast_signed()).context("an id")?,
        Signal::INT,
    )?;
    let (status, _, said) = program.end()?;
    ensure!(!status.success() && status.signal().is_none(), "{status}: {said}");
    ensure!(!said.contains("is killed"), "every part stops by itself: {said}");
    Ok(())
}

#[test]
fn sigkill_leaves_nothing() -> Result<()> {
    let mut program = start(
        &["run", "--no-web", "--", "sh", "-c", "echo up; sleep 1000"],
        None,
    )?;
    program.wait_for_line("up")?;
    program.child.kill()?;
    let (status, ..) = program.end()?;
    ensure!(status.signal() == Some(9), "{status}");
    Ok(())
}

#[test]
fn what_is_missing_is_said_in_one_line_and_nothing_is_left() -> Result<()> {
    // A machine with everything but Java.
    let path = tempfile::tempdir()?;
    for program in ["sh", "grep", "sed", "sleep", "rm", "id", "node", "env"] {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .map(|folder| folder.join(program))
            .find(|file| file.is_file())
            .with_context(|| format!("{program} is not in the path"))?;
        std::os::unix::fs::symlink(found, path.path().join(program))?;
    }
    let (status, printed, said) = start(&["smoke"], Some(path.path()))?.end()?;
    ensure!(
        status.code() == Some(1) && printed.is_empty(),
        "{status}: {printed}"
    );
    let last = said.lines().last().unwrap_or_default();
    ensure!(
        last.contains("java is missing") && last.contains("make setup"),
        "{said}"
    );
    Ok(())
}
