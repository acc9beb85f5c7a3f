//! The table of faults: replicas killed at random, partitions handed over, database links cut in the middle of a
//! transaction and on either side of a commit, while records come, every tenth twice. What is in the tables at the end
//! must be the distinct input.
//!
//! `make test` runs a short form; `make test-sink-faults` sets `SINK_FAULT_KILLS` and `SINK_FAULT_RECORDS`. The seed is
//! printed and can be given as `SINK_FAULT_SEED`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::TimeDelta;
use stack::part::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::world::{Database, Ids, Sent, TABLES, WITHIN, World, record, start_of_data, with_world};

const REPLICAS: usize = 3;
/// Kills follow one another closely, and only after so many of them is there a wait for new rows: the group gives up a
/// killed member after 6 s, and every wait is at least that long.
const KILLS_BETWEEN_WAITS: usize = 4;

/// Where a link is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// Rows are on their way to the server.
    InTransaction,
    /// The server never hears of the commit.
    BeforeCommit,
    /// The server has committed, and the sink never hears of it.
    AfterCommit,
}

const FAULTS: [Fault; 3] = [Fault::InTransaction, Fault::BeforeCommit, Fault::AfterCommit];

/// What the proxy is to do next, and what it has done.
#[derive(Debug, Default)]
struct Plan {
    armed: Option<Fault>,
    done: BTreeMap<Fault, u32>,
}

/// A link to the database that cuts a connection at a chosen place of PostgreSQL's protocol.
struct Cutter {
    address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    task: JoinHandle<()>,
}

impl Cutter {
    async fn start(target: SocketAddr) -> Result<Cutter> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let plan = Arc::<Mutex<Plan>>::default();
        let shared = plan.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let plan = shared.clone();
                // Ends with its connection, at the latest with the test program.
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(target).await {
                        // That a side has gone is the end of the link, and the reason does not matter here.
                        let _ = link(client, server, &plan).await;
                    }
                });
            }
        });
        Ok(Cutter { address, plan, task })
    }

    /// Cuts the next connection that comes to the place, instead of what was armed before.
    fn arm(&self, fault: Option<Fault>) {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).armed = fault;
    }

    fn done(&self) -> BTreeMap<Fault, u32> {
        self.plan
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .done
            .clone()
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes bytes until a side closes or a fault strikes; dropping both sockets is the cut.
async fn link(mut client: TcpStream, mut server: TcpStream, plan: &Mutex<Plan>) -> std::io::Result<()> {
    let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let bytes = &up[..read?];
                if bytes.is_empty() {
                    return Ok(());
                }
                match strike(plan, bytes) {
                    None => server.write_all(bytes).await?,
                    Some(Fault::BeforeCommit) => return Ok(()),
                    Some(Fault::InTransaction) => return server.write_all(&bytes[..bytes.len() / 2]).await,
                    Some(Fault::AfterCommit) => {
                        server.write_all(bytes).await?;
                        // The answer comes when the commit is done, and goes nowhere.
                        return server.read(&mut down).await.map(|_| ());
                    }
                }
            }
            read = server.read(&mut down) => {
                let bytes = &down[..read?];
                if bytes.is_empty() {
                    return Ok(());
                }
                client.write_all(bytes).await?;
            }
        }
    }
}

/// Takes the armed fault when these bytes of the sink are its place.
fn strike(plan: &Mutex<Plan>, bytes: &[u8]) -> Option<Fault> {
    let mut plan = plan.lock().unwrap_or_else(PoisonError::into_inner);
    let armed = plan.armed?;
    let place: &[u8] = match armed {
        // The device's name is in the rows alone, whichever way they go.
        Fault::InTransaction => b"faults-",
        Fault::BeforeCommit | Fault::AfterCommit => b"COMMIT",
    };
    if !bytes.windows(place.len()).any(|window| window == place) {
        return None;
    }
    plan.armed = None;
    *plan.done.entry(armed).or_default() += 1;
    Some(armed)
}

/// Numbers from a seed, so that a failed run can be repeated (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn setting(name: &str, default: u64) -> Result<u64> {
    std::env::var(name)
        .map_or(Ok(default), |value| value.parse())
        .with_context(|| format!("{name} is not a number"))
}

/// Records of one part of the run, all of one kind, so that a backlog of them is large enough for COPY.
fn part_of(part: usize, numbers: std::ops::Range<u64>, ids: &mut Ids) -> Vec<Sent> {
    let start = start_of_data();
    let (name, _) = TABLES[part % TABLES.len()];
    let mut records = Vec::new();
    for number in numbers {
        let device = format!("faults-{}", number % 7);
        let id = format!("p0/faults/{number}");
        let time = start + TimeDelta::milliseconds(i64::try_from(number).expect("a small count"));
        let value = record(name, &device, &id, time, number as f64);
        for _ in 0..1 + usize::from(number % 10 == 0) {
            records.push((name, device.clone(), value.clone()));
        }
        ids.entry(name).or_default().insert(id);
    }
    records
}

async fn count(world: &World) -> Result<u64> {
    let mut sum = 0;
    for (_, table) in TABLES {
        let statement = format!("select count(*) from {table} where device_id like 'faults-%'");
        sum += world
            .postgres
            .psql("sink_faults", &statement)
            .await?
            .parse::<u64>()?;
    }
    Ok(sum)
}

#[test]
fn kills_rebalances_and_cut_links_leave_the_distinct_input() -> Result<()> {
    with_world(async |world: &'static World| {
        let kills = usize::try_from(setting("SINK_FAULT_KILLS", 10)?)?;
        let records = setting("SINK_FAULT_RECORDS", 20_000)?;
        let now = u64::try_from(start_of_data().timestamp_micros())?;
        let seed = setting("SINK_FAULT_SEED", now)?.max(1);
        eprintln!("SINK_FAULT_SEED={seed}");
        let mut chance = Chance(seed);

        let database: Database = world.database("sink_faults").await?;
        let cutter = Cutter::start(world.postgres.address()).await?;
        let direct = world.postgres.address().to_string();
        let url = database.sink_url.replace(&direct, &cutter.address.to_string());
        let mut replicas = Vec::new();
        for _ in 0..REPLICAS {
            replicas.push(world.sink("faults", &url).await?);
        }

        let mut ids = Ids::new();
        let each = records / u64::try_from(kills)?;
        for kill in 0..kills {
            let first = each * u64::try_from(kill)?;
            let last = if kill + 1 == kills { records } else { first + each };
            let before = count(world).await?;
            world.produce(&part_of(kill, first..last, &mut ids)).await?;
            cutter.arm(Some(FAULTS[kill % FAULTS.len()]));
            if kill % KILLS_BETWEEN_WAITS == 0 {
                eventually("new rows before a kill", WITHIN, async || {
                    Ok((count(world).await? > before).then_some(()))
                })
                .await?;
            }
            tokio::time::sleep(Duration::from_millis(chance.below(500))).await;
            let victim = &replicas[usize::try_from(chance.below(REPLICAS as u64))?];
            victim.part.kill().await;
            victim.part.restart().await?;
        }
        // Every fault must have struck: with the group at peace again, what is still owed comes with more records.
        let mut next = records;
        for (part, fault) in FAULTS.into_iter().enumerate() {
            if cutter.done().contains_key(&fault) {
                continue;
            }
            cutter.arm(Some(fault));
            world.produce(&part_of(part, next..next + 100, &mut ids)).await?;
            next += 100;
            eventually(&format!("{fault:?}"), WITHIN, async || {
                Ok(cutter.done().contains_key(&fault).then_some(()))
            })
            .await?;
        }
        cutter.arm(None);
        world.caught_up("faults").await?;
        database.holds_exactly("faults", &ids).await?;
        let rows = count(world).await?;
        ensure!(rows == next, "{rows} rows of {next} distinct records");
        eprintln!("{kills} kills, {rows} rows, links cut: {:?}", cutter.done());
        for replica in &replicas {
            replica.part.stop().await;
        }
        Ok(())
    })
}
