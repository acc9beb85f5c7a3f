//! Command line of the fault tests: `full` runs the long form and prints its one line of JSON, `inspect` is what a power
//! cut is looked at with.

use std::{io::Write as _, path::Path};

use anyhow::{Context, Result, bail};
use faults::{Report, backlog, disk, kills, namespaces, power};

#[tokio::main]
async fn main() -> Result<()> {
    namespaces::enter();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |word: &str| {
        word.parse::<u64>()
            .with_context(|| format!("{word} is no number"))
    };
    let mut report = Report::default();
    match words[..] {
        ["inspect", data] => return print(&power::inspect(Path::new(data)).await?.join("\n")),
        ["full"] => {
            report.add(killed(220, 32).await?);
            report.add(disk::run(4).await?);
            report.add(backlog::run(300_000).await?);
            report.add(cut(400, 4_000).await?);
        }
        ["kills", kills, clients] => report.add(killed(number(kills)?, number(clients)?).await?),
        ["disk", times] => report.add(disk::run(number(times)?).await?),
        ["backlog", messages] => report.add(backlog::run(number(messages)?).await?),
        ["cuts", cuts, messages] => report.add(cut(number(cuts)?, number(messages)?).await?),
        _ => bail!(
            "usage: faults full | kills <kills> <clients> | disk <times> | backlog <messages> | cuts <cuts> <messages> | inspect <folder>"
        ),
    }
    for example in &report.examples {
        eprintln!("faults: {example}");
    }
    print(&report.line())?;
    report.check()
}

async fn killed(kills: u64, clients: u64) -> Result<Report> {
    let clients = usize::try_from(clients)?;
    kills::run(kills::Plan {
        kills,
        clients,
        pause_ms: 40,
    })
    .await
}

async fn cut(cuts: u64, messages: u64) -> Result<Report> {
    let seed = rand::random();
    eprintln!("faults: seed of the power cuts: {seed}");
    let plan = power::Plan {
        cuts,
        messages,
        clients: 16,
        seed,
    };
    power::run(plan, &std::env::current_exe()?).await
}

fn print(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").context("writing the answer")
}
