//! Nothing is left running, however the process that uses the stack ends.
//!
//! Each case starts this very test program once more as "the parent", which starts two stubborn children and says their
//! ids; then the parent is ended in the way the case is about, and the children have to go.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use stack::{guardian, part::Part};

/// The guardian gives children 3 s to stop by themselves and looks every 0.1 s; the rest is for a busy machine.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// Ignores SIGTERM and has a child in a session of its own, as a browser has.
const STUBBORN: &str = "trap '' TERM; setsid sleep 1000 & echo child $!; sleep 1000";

/// Not a test: what the other tests run as "the parent". Does nothing when it is run as a test.
#[tokio::test]
async fn parent() -> Result<()> {
    let Ok(ending) = std::env::var("GUARDIAN_TEST_ENDING") else {
        return Ok(());
    };
    let run = guardian::run()?;
    std::fs::write(run.data("something")?.join("file"), "data")?;
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", STUBBORN]);
    let part = Part::start("stubborn", shell).await?;
    let log = part.log().to_owned();
    part.ready(Duration::from_secs(10), async || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.starts_with("child") && text.ends_with('\n'))
    })
    .await?;
    let text = std::fs::read_to_string(&log)?;
    let detached = text.trim().trim_start_matches("child ");
    let pid = part.pid().await.context("it runs")?;
    println!("\nready {pid} {detached} {}", run.folder().display());
    match ending.as_str() {
        "panic" => panic!("as the case wants"),
        "return" => return Ok(()),
        _ => std::future::pending::<()>().await,
    }
    Ok(())
}

struct Parent {
    process: Child,
    children: Vec<i32>,
    folder: PathBuf,
}

fn start_parent(ending: &str) -> Result<Parent> {
    let mut process = Command::new(std::env::current_exe()?)
        .args(["--exact", "parent", "--nocapture"])
        .env("GUARDIAN_TEST_ENDING", ending)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stdout = process.stdout.take().context("piped")?;
    for line in BufReader::new(stdout).lines() {
        if let Some(rest) = line?.strip_prefix("ready ") {
            let mut words = rest.split_whitespace();
            let mut id = || anyhow::Ok(words.next().context("an id")?.parse::<i32>()?);
            let children = vec![id()?, id()?];
            let folder = PathBuf::from(words.next().context("a folder")?);
            return Ok(Parent {
                process,
                children,
                folder,
            });
        }
    }
    anyhow::bail!("the parent ended before it was ready")
}

/// A zombie that nobody has reaped yet has ended: it is not running.
fn runs(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

fn check(ending: &str, signal: Option<Signal>) -> Result<()> {
    let mut parent = start_parent(ending)?;
    if let Some(signal) = signal {
        let pid = Pid::from_raw(parent.process.id().cast_signed()).context("an id")?;
        for child in &parent.children {
            ensure!(runs(*child), "{child} is not running before the end");
        }
        kill_process(pid, signal)?;
    }
    parent.process.wait()?;
    let begin = Instant::now();
    let data = parent.folder.join("data");
    while parent.children.iter().any(|child| runs(*child)) || data.exists() {
        let left: Vec<_> = parent.children.iter().filter(|child| runs(**child)).collect();
        ensure!(
            begin.elapsed() < GONE_WITHIN,
            "{ending}: still running {left:?}, data left: {}",
            data.exists()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    ensure!(
        Path::new(&parent.folder).join("logs/stubborn.log").exists(),
        "the logs are kept"
    );
    std::fs::remove_dir_all(&parent.folder)?;
    Ok(())
}

#[test]
fn nothing_is_left_after_sigkill() -> Result<()> {
    check("wait", Some(Signal::KILL))
}

#[test]
fn nothing_is_left_after_ctrl_c() -> Result<()> {
    check("wait", Some(Signal::INT))
}

#[test]
fn nothing_is_left_after_sigterm() -> Result<()> {
    check("wait", Some(Signal::TERM))
}

#[test]
fn nothing_is_left_after_a_panic() -> Result<()> {
    check("panic", None)
}

#[test]
fn nothing_is_left_after_an_ordinary_end() -> Result<()> {
    check("return", None)
}
