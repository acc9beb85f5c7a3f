//! What systemd sees of the agent: the notify socket is played by the test, the agent is the real process.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::WITHIN;
use stack::mqtt::Publisher;
use stack::part::eventually;

use crate::lone::{Lone, Options, record, with_kafka};

/// systemd's end of the notify socket.
struct Systemd {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Systemd {
    fn new(name: &str) -> Result<Systemd> {
        let path = stack::guardian::run()?.data(name)?.join("notify");
        let socket = UnixDatagram::bind(&path)?;
        Ok(Systemd { socket, path })
    }

    fn environment(&self, watchdog: Duration) -> Vec<(&'static str, String)> {
        vec![
            ("NOTIFY_SOCKET", self.path.display().to_string()),
            ("WATCHDOG_USEC", watchdog.as_micros().to_string()),
        ]
    }

    /// The next message that contains `wanted`, and what came before it.
    fn hear(&self, wanted: &str, within: Duration) -> Result<Vec<String>> {
        let begin = Instant::now();
        let mut heard = Vec::new();
        while let Some(left) = within.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) {
            self.socket.set_read_timeout(Some(left))?;
            let mut bytes = [0; 1024];
            let Ok(count) = self.socket.recv(&mut bytes) else {
                break;
            };
            let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
            let found = text.contains(wanted);
            heard.push(text);
            if found {
                return Ok(heard);
            }
        }
        anyhow::bail!("systemd did not hear {wanted}, only {heard:?}")
    }
}

#[test]
fn ready_comes_when_ports_are_bound_then_status_watchdog_and_a_bounded_stop() -> Result<()> {
    with_kafka(async |kafka| {
        let systemd = Systemd::new("manners-systemd")?;
        let kafka = format!("bootstrap = \"{}\"", kafka.kafka.bootstrap());
        let agent = Lone::spawn(
            "manners-agent",
            Options {
                agent: Some("manners"),
                kafka,
                environment: systemd.environment(Duration::from_secs(2)),
                ..Options::default()
            },
        )
        .await?;
        let heard = systemd.hear("READY=1", WITHIN)?;
        ensure!(heard.len() == 1, "{heard:?}");
        // Bound and open: both ports answer at once, and a reading is kept.
        agent.page("/readyz").await?;
        let mut publisher = Publisher::connect(agent.mqtt, "manners-plug").await?;
        publisher
            .publish("tele/manners-plug/STATE", r#"{"POWER":"ON"}"#)
            .await?;
        systemd.hear("WATCHDOG=1", WITHIN)?;
        systemd.hear("STATUS=", WITHIN)?;
        systemd.hear("WATCHDOG=1", WITHIN)?;
        let begin = Instant::now();
        agent.part.stop().await;
        systemd.hear("STOPPING=1", WITHIN)?;
        ensure!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
        Ok(())
    })
}

#[test]
fn sighup_takes_new_locations_and_routes_and_keeps_the_old_when_the_new_are_wrong() -> Result<()> {
    with_kafka(async |kafka| {
        let section = format!("bootstrap = \"{}\"", kafka.kafka.bootstrap());
        let agent = Lone::start(
            "reload-agent",
            Options {
                agent: Some("reload"),
                kafka: section,
                ..Options::default()
            },
        )
        .await?;
        let file = stack::guardian::run()?
            .data("reload-agent")?
            .join("edge-agent.toml");
        let first = std::fs::read_to_string(&file)?;
        let log = agent.part.log().to_owned();
        let logged = async |text: &'static str| {
            eventually(text, WITHIN, async || {
                Ok(std::fs::read_to_string(&log)?.contains(text).then_some(()))
            })
            .await
        };

        std::fs::write(
            &file,
            format!("{first}\n[[routes]]\nfilter = \"a/#/b\"\ndecoder = \"shelly\"\n"),
        )?;
        agent.part.signal(rustix::process::Signal::HUP).await?;
        logged("the configuration cannot be used; the old one stays").await?;
        let mut publisher = Publisher::connect(agent.mqtt, "reload-publisher").await?;
        publisher
            .publish("tele/reload-old/STATE", r#"{"POWER":"ON"}"#)
            .await?;
        record(kafka, telemetry::topic::PLUG, |r| r["device_id"] == "reload-old").await?;

        let better = format!(
            "{first}\n[[routes]]\nfilter = \"home/+/state\"\ndecoder = \"tasmota_state\"\n[locations]\nreload-new = \"hall\"\n"
        );
        std::fs::write(&file, better)?;
        agent.part.signal(rustix::process::Signal::HUP).await?;
        logged("locations were read again").await?;
        publisher
            .publish("home/reload-new/state", r#"{"POWER":"ON"}"#)
            .await?;
        let found = record(kafka, telemetry::topic::PLUG, |r| r["device_id"] == "reload-new").await?;
        ensure!(found["location"] == "hall", "{found}");
        agent.part.stop().await;
        Ok(())
    })
}

/// A disk that does not answer any more: strace lets every fdatasync after the first few hang.
#[test]
fn a_stage_that_hangs_ends_the_watchdogs_food() -> Result<()> {
    if !cfg!(target_os = "linux") || std::process::Command::new("strace").arg("-V").output().is_err() {
        eprintln!("a hanging disk: left out, strace is missing");
        return Ok(());
    }
    with_kafka(async |kafka| {
        let systemd = Systemd::new("hanging-systemd")?;
        let wrapper = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync"];
        let inject = "inject=fdatasync:delay_enter=300s:when=30+";
        let mut wrapper: Vec<String> = wrapper.iter().map(ToString::to_string).collect();
        wrapper.extend(["-e".to_owned(), inject.to_owned()]);
        let agent = Lone::start(
            "hanging-agent",
            Options {
                agent: Some("hanging"),
                kafka: format!("bootstrap = \"{}\"", kafka.kafka.bootstrap()),
                environment: systemd.environment(Duration::from_secs(4)),
                wrapper,
                ..Options::default()
            },
        )
        .await?;
        systemd.hear("WATCHDOG=1", WITHIN)?;
        // Each message of its own is a commit; one of the first thirty is the last.
        let mut publisher = Publisher::connect(agent.mqtt, "hanging-plug").await?;
        let publish = async {
            loop {
                publisher
                    .publish("tele/hanging-plug/STATE", r#"{"POWER":"ON"}"#)
                    .await?;
            }
            #[expect(unreachable_code, reason = "gives the block its type")]
            anyhow::Ok(())
        };
        let error = publish.await.err().context("the disk did not hang")?;
        ensure!(error.to_string().contains("PUBACK"), "{error:#}");
        systemd.hear("STATUS=hangs: buffer", Duration::from_secs(90))?;
        ensure!(
            systemd.hear("WATCHDOG=1", Duration::from_secs(10)).is_err(),
            "the watchdog is fed though the buffer hangs"
        );
        // The other stages are well: it answers, and says what hangs.
        ensure!(agent.page("/livez").await?.contains("buffer"));
        agent.part.kill().await;
        Ok(())
    })
}
