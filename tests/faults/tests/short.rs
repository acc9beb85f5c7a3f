//! The short form: kills, troubles of Kafka and of the links, a disk that is full by the agent's own buffer and by somebody
//! else's file, a backlog, and power cuts, some seconds each. `make test-faults` runs the long one.

use std::path::Path;

use anyhow::Result;
use faults::{Report, backlog, disk, kills, namespaces, power};

/// One program, one after the other: each needs a Kafka and the machine for itself.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_doubled_or_reordered() -> Result<()> {
    namespaces::enter();
    let mut report = Report::default();
    report.add(
        kills::run(kills::Plan {
            kills: 20,
            clients: 24,
            pause_ms: 40,
        })
        .await?,
    );
    report.add(disk::run(2).await?);
    report.add(backlog::run(15_000).await?);
    if power::can_record().await {
        let plan = power::Plan {
            cuts: 50,
            messages: 600,
            clients: 16,
            seed: rand::random(),
        };
        eprintln!("faults: seed of the power cuts: {}", plan.seed);
        report.add(power::run(plan, Path::new(env!("CARGO_BIN_EXE_faults"))).await?);
    } else {
        println!("faults: no power cuts: strace is missing or may not trace here");
    }
    println!("{}", report.line());
    report.check()
}
