//! The ways in which the readings of a case come in, each of which must give the same sums.

use anyhow::Result;
use sqlx::postgres::PgConnection;

use crate::cases::{CASES, Case, PowerOnly, Unsynced};
use crate::execute;

/// How the readings of a case come in.
#[derive(Clone, Copy, Debug)]
pub enum Arrival {
    InOrder,
    Backwards,
    AtOnce,
    /// Two halves, each by COPY into the table, as a sink that catches up writes.
    ByCopy,
    /// With the readings of all other cases in one statement, as a backlog drains: from one year to the next over months,
    /// so that it writes to many chunks.
    AcrossChunks,
}

pub const ARRIVALS: [Arrival; 5] = [
    Arrival::InOrder,
    Arrival::Backwards,
    Arrival::AtOnce,
    Arrival::ByCopy,
    Arrival::AcrossChunks,
];

pub fn device_name(case: usize, arrival: Arrival, device: &str) -> String {
    format!("case{case}-{arrival:?}-{device}")
}

/// The readings of a case as rows of a `values` list.
fn values_of(number: usize, case: &Case, arrival: Arrival) -> Vec<String> {
    let mut values: Vec<String> = Vec::new();
    for (index, (device, meter, time, wh, kind)) in case.readings.iter().enumerate() {
        let device = device_name(number, arrival, device);
        let clock = if *kind == Unsynced { "unsynced" } else { "synced" };
        let energy = if *kind == PowerOnly {
            "null".to_owned()
        } else {
            wh.to_string()
        };
        // Sold energy follows the same rule: it is the same counter, shifted.
        let export = if *kind == PowerOnly {
            "null".to_owned()
        } else {
            (wh * 2.0).to_string()
        };
        values.push(format!(
            "('{device}', '{time}', 'id{index}', 'p0', '{clock}', nullif('{meter}', ''), {energy}, {export}, 100)"
        ));
    }
    values
}

/// Inserts all cases, in every way.
pub async fn insert_cases(database: &mut PgConnection) -> Result<()> {
    let mut of_all = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        for arrival in ARRIVALS {
            let values = values_of(number, case, arrival);
            match arrival {
                Arrival::AcrossChunks => of_all.extend(values),
                _ => insert(database, values, arrival).await?,
            }
        }
    }
    insert(database, of_all, Arrival::AtOnce).await
}

async fn insert(database: &mut PgConnection, values: Vec<String>, arrival: Arrival) -> Result<()> {
    let statements = match arrival {
        Arrival::InOrder => values,
        Arrival::Backwards => values.into_iter().rev().collect(),
        Arrival::AtOnce | Arrival::AcrossChunks => vec![values.join(", ")],
        Arrival::ByCopy => {
            for half in values.chunks(values.len().div_ceil(2)) {
                copy(database, &half.join(", ")).await?;
            }
            return Ok(());
        }
    };
    for values in statements {
        let insert = format!(
            "insert into energy_consumption
                (device_id, time, id, agent, clock, meter_id, energy_wh, export_energy_wh, power_w)
            values {values} on conflict (device_id, time, id) do nothing"
        );
        // A redelivery changes nothing.
        execute(database, insert.clone()).await?;
        execute(database, insert).await?;
    }
    Ok(())
}

/// COPY from a file of the server's, because the WebAssembly build takes none from the client.
async fn copy(database: &mut PgConnection, values: &str) -> Result<()> {
    execute(
        database,
        format!(
            "do $$
            declare
                file constant text := current_setting('data_directory') || '/energy-rule.copy';
            begin
                create temporary table staged (like energy_consumption);
                insert into staged (device_id, time, id, agent, clock, meter_id, energy_wh, export_energy_wh, power_w)
                values {values};
                execute format('copy staged to %L', file);
                execute format('copy energy_consumption from %L', file);
                drop table staged;
            end
            $$"
        ),
    )
    .await
}
