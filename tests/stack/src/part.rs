//! One child process of the stack: started with a log of its own, waited for until it is ready, stopped, killed, restarted.
//!
//! Every part is a process group of its own under the guardian's care. A part never restarts by itself: that it ended is
//! what a test wants to see.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use crate::guardian;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);
/// A part that has not stopped by itself after this long is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// An answer of a health endpoint is a few bytes; one that takes longer is no answer.
const HTTP_WITHIN: Duration = Duration::from_secs(2);
/// How much of a log is shown when a part fails.
const LOG_LINES_SHOWN: usize = 15;

/// A child process of the stack.
#[derive(Debug)]
pub struct Part {
    name: String,
    log: PathBuf,
    stop_signal: Signal,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    command: Command,
    child: Option<Child>,
}

impl Part {
    /// Starts `command` under `name`, its output going to the log of that name.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub async fn start(name: impl Into<String>, mut command: Command) -> Result<Part> {
        let name = name.into();
        let run = guardian::run()?;
        let log = run.log(&name);
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let (key, value) = run.mark();
        command
            .env(key, value)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let part = Part {
            name,
            log,
            stop_signal: Signal::TERM,
            state: Mutex::new(State { command, child: None }),
        };
        part.restart().await?;
        Ok(part)
    }

    /// The same part, stopped by another signal than SIGTERM.
    #[must_use]
    pub fn stopped_by(mut self, signal: Signal) -> Part {
        self.stop_signal = signal;
        self
    }

    /// Its name, which is also that of its log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its process id while it runs.
    pub async fn pid(&self) -> Option<u32> {
        self.state.lock().await.child.as_ref().and_then(Child::id)
    }

    /// Starts it again with the same command; a part that still runs is stopped first.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub async fn restart(&self) -> Result<()> {
        self.stop().await;
        let mut state = self.state.lock().await;
        let child = state.command.spawn().with_context(|| {
            format!(
                "cannot start {} ({})",
                self.name,
                state.command.as_std().get_program().display()
            )
        })?;
        if let Some(pid) = child.id() {
            guardian::run()?.guard(pid);
        }
        state.child = Some(child);
        Ok(())
    }

    /// Sends a signal to the whole process group, SIGSTOP and SIGCONT for instance.
    ///
    /// # Errors
    /// When the part does not run.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        let group = self.pid().await.and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let group = group.with_context(|| format!("{} is not running", self.name))?;
        kill_process_group(group, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Asks it to stop and waits; kills it when it takes too long. A part that has already ended is fine.
    pub async fn stop(&self) {
        self.end_with(self.stop_signal).await;
    }

    /// SIGKILL, as a power cut would end it, and waits until it is gone.
    pub async fn kill(&self) {
        self.end_with(Signal::KILL).await;
    }

    async fn end_with(&self, signal: Signal) {
        let mut state = self.state.lock().await;
        let Some(mut child) = state.child.take() else {
            return;
        };
        let Some(pid) = child.id() else { return };
        let group = Pid::from_raw(pid.cast_signed());
        if let Some(group) = group {
            let _gone = kill_process_group(group, signal);
        }
        if timeout(STOP_WITHIN, child.wait()).await.is_err() {
            eprintln!(
                "stack: {} did not stop within {} s and is killed",
                self.name,
                STOP_WITHIN.as_secs()
            );
        }
        // Whatever it left in its group ends with it.
        if let Some(group) = group {
            let _gone = kill_process_group(group, Signal::KILL);
        }
        let _reaped = child.wait().await;
        if let Ok(run) = guardian::run() {
            run.forget(pid);
        }
    }

    /// Waits until it ends by itself and gives its exit code, 128 and the signal's number added when one ended it.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn wait(&self) -> Result<i32> {
        use std::os::unix::process::ExitStatusExt;
        loop {
            let mut state = self.state.lock().await;
            let child = state
                .child
                .as_mut()
                .with_context(|| format!("{} is not running", self.name))?;
            if let Some(status) = child.try_wait()? {
                return Ok(status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or_default()));
            }
            drop(state);
            sleep(POLL).await;
        }
    }

    /// Waits until `check` says yes.
    ///
    /// # Errors
    /// With the end of its log, when the part ends before or the deadline passes.
    pub async fn ready<C: AsyncFn() -> bool>(&self, within: Duration, check: C) -> Result<()> {
        let begin = Instant::now();
        loop {
            if check().await {
                return Ok(());
            }
            let exited = match self.state.lock().await.child.as_mut() {
                Some(child) => child.try_wait()?.map(|status| status.to_string()),
                None => Some("stopped".to_owned()),
            };
            if let Some(status) = exited {
                return Err(self.failure(format!("ended while starting ({status})")));
            }
            if begin.elapsed() > within {
                return Err(self.failure(format!("is not ready after {} s", within.as_secs())));
            }
            sleep(POLL).await;
        }
    }

    /// Waits until `GET path` at `address` answers 200.
    ///
    /// # Errors
    /// As [`Part::ready`].
    pub async fn ready_http(
        &self,
        within: Duration,
        address: std::net::SocketAddr,
        path: &str,
    ) -> Result<()> {
        self.ready(within, async || get_is_ok(address, path).await).await
    }

    fn failure(&self, what: impl Display) -> anyhow::Error {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n  ");
        anyhow!(
            "{} {what}; its log, {}, ends:\n  {tail}",
            self.name,
            self.log.display()
        )
    }
}

impl Drop for Part {
    /// A part that is given up, by a failed start for instance, is told to stop. The guardian does not tell it a second
    /// time, but kills it, by the run's mark, when it has not gone by the end of the run.
    fn drop(&mut self) {
        let Some(pid) = self.state.get_mut().child.as_ref().and_then(Child::id) else {
            return;
        };
        if let Some(group) = Pid::from_raw(pid.cast_signed()) {
            let _gone = kill_process_group(group, self.stop_signal);
        }
        if let Ok(run) = guardian::run() {
            run.forget(pid);
        }
    }
}

/// Whether an HTTP GET is answered 200. Needs nothing but a socket: it is asked fifty times a second while parts start.
pub async fn get_is_ok(address: std::net::SocketAddr, path: &str) -> bool {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let answer = timeout(HTTP_WITHIN, async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        std::io::Result::Ok(head)
    });
    matches!(answer.await, Ok(Ok(head)) if head.ends_with(b" 200"))
}

/// Waits until `check` gives a value, looking every few milliseconds.
///
/// # Errors
/// When the deadline passes; `what` says what was waited for. An error of `check` itself counts as "not yet" and is shown
/// when the deadline passes.
pub async fn eventually<T, C>(what: &str, within: Duration, check: C) -> Result<T>
where
    C: AsyncFn() -> Result<Option<T>>,
{
    let begin = Instant::now();
    loop {
        let last = match check().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if begin.elapsed() > within {
            match last {
                Some(error) => return Err(error.context(format!("waited {} s for {what}", within.as_secs()))),
                None => bail!("waited {} s for {what}", within.as_secs()),
            }
        }
        sleep(POLL).await;
    }
}
