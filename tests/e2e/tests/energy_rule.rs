//! The energy rule and the on-hours of DESIGN 5.3, by cases computed by hand, on PostgreSQL and on TimescaleDB.
//!
//! Every case arrives in three ways (one by one in order, one by one backwards, all in one statement) and must give the same
//! rows. On TimescaleDB the rows are looked at three times: aggregated on the fly, after the summaries were refreshed, and
//! after the raw rows were dropped as after 90 days.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection, Row};
use stack::guardian;
use stack::postgres::{Database, Postgres};
use stack::timescale::Timescale;

/// A reading: device, meter ("" for none), time in UTC, counter, and what else.
type Reading = (&'static str, &'static str, &'static str, f64, Kind);

/// What is particular about a reading.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Nothing.
    Plain,
    /// Its clock was never synchronised.
    Unsynced,
    /// It carries power, and no counter.
    PowerOnly,
}
use Kind::{Plain, PowerOnly, Unsynced};

/// All rows of one view for one device: start, energy in Wh, whether it is estimated.
type Rows = &'static [(&'static str, Option<f64>, bool)];

struct Case {
    name: &'static str,
    zone: &'static str,
    readings: &'static [Reading],
    /// Device, bucket, rows.
    expect: &'static [(&'static str, Bucket, Rows)],
}

#[derive(Clone, Copy)]
enum Bucket {
    Hour,
    Day,
    Month,
    Year,
}
use Bucket::{Day, Hour, Month, Year};

impl Bucket {
    fn view(self) -> (&'static str, &'static str) {
        match self {
            Hour => ("energy_hourly", "hour_start"),
            Day => ("energy_daily_summary", "day_start"),
            Month => ("energy_monthly_summary", "month_start"),
            Year => ("energy_yearly_summary", "year_start"),
        }
    }
}

const UTC: &str = "UTC";
const STOCKHOLM: &str = "Europe/Stockholm";

const CASES: &[Case] = &[
    Case {
        name: "a gain belongs to the bucket of the later reading, and buckets are half-open",
        zone: UTC,
        readings: &[
            ("m", "", "2026-01-10 00:50:00Z", 100.0, Plain),
            ("m", "", "2026-01-10 00:59:59.999999Z", 103.0, Plain),
            ("m", "", "2026-01-10 01:00:00Z", 110.0, Plain),
            ("m", "", "2026-01-10 01:10:00Z", 130.0, Plain),
        ],
        expect: &[
            (
                "m",
                Hour,
                &[
                    ("2026-01-10 00:00:00Z", Some(3.0), false),
                    ("2026-01-10 01:00:00Z", Some(27.0), false),
                ],
            ),
            ("m", Day, &[("2026-01-10 00:00:00Z", Some(30.0), false)]),
        ],
    },
    Case {
        name: "a reset gains the new value",
        zone: UTC,
        readings: &[
            ("m", "", "2026-01-10 00:00:00Z", 1000.0, Plain),
            ("m", "", "2026-01-10 00:10:00Z", 1010.0, Plain),
            ("m", "", "2026-01-10 00:20:00Z", 5.0, Plain),
            ("m", "", "2026-01-10 00:30:00Z", 25.0, Plain),
        ],
        expect: &[("m", Hour, &[("2026-01-10 00:00:00Z", Some(35.0), false)])],
    },
    Case {
        name: "a reset on the edge of an hour, and another in the next",
        zone: UTC,
        readings: &[
            ("m", "", "2026-01-10 00:55:00Z", 500.0, Plain),
            ("m", "", "2026-01-10 01:00:00Z", 7.0, Plain),
            ("m", "", "2026-01-10 01:05:00Z", 90.0, Plain),
            ("m", "", "2026-01-10 02:00:00Z", 0.0, Plain),
            ("m", "", "2026-01-10 02:10:00Z", 4.0, Plain),
        ],
        expect: &[
            (
                "m",
                Hour,
                &[
                    ("2026-01-10 00:00:00Z", Some(0.0), false),
                    ("2026-01-10 01:00:00Z", Some(90.0), false),
                    ("2026-01-10 02:00:00Z", Some(4.0), true),
                ],
            ),
            ("m", Day, &[("2026-01-10 00:00:00Z", Some(94.0), true)]),
        ],
    },
    Case {
        name: "a tenth of the previous value is not yet a reset, less is",
        zone: UTC,
        readings: &[
            ("slip", "", "2026-01-10 00:00:00Z", 1000.0, Plain),
            ("slip", "", "2026-01-10 00:10:00Z", 100.0, Plain),
            ("slip", "", "2026-01-10 00:20:00Z", 1005.0, Plain),
            ("reset", "", "2026-01-10 00:00:00Z", 1000.0, Plain),
            ("reset", "", "2026-01-10 00:10:00Z", 99.0, Plain),
            ("reset", "", "2026-01-10 00:20:00Z", 1005.0, Plain),
        ],
        expect: &[
            ("slip", Hour, &[("2026-01-10 00:00:00Z", Some(5.0), false)]),
            ("reset", Hour, &[("2026-01-10 00:00:00Z", Some(1005.0), false)]),
        ],
    },
    Case {
        name: "a counter that slips back gains nothing until it passes its old maximum",
        zone: UTC,
        readings: &[
            ("m", "", "2026-01-10 00:50:00Z", 100.0, Plain),
            ("m", "", "2026-01-10 00:58:00Z", 98.0, Plain),
            ("m", "", "2026-01-10 01:05:00Z", 99.0, Plain),
            ("m", "", "2026-01-10 01:10:00Z", 100.0, Plain),
            ("m", "", "2026-01-10 01:20:00Z", 103.0, Plain),
        ],
        expect: &[(
            "m",
            Hour,
            &[
                ("2026-01-10 00:00:00Z", Some(0.0), false),
                ("2026-01-10 01:00:00Z", Some(3.0), false),
            ],
        )],
    },
    Case {
        name: "an old maximum is remembered for days",
        zone: UTC,
        readings: &[
            ("m", "", "2026-01-10 00:00:00Z", 90.0, Plain),
            ("m", "", "2026-01-10 00:05:00Z", 100.0, Plain),
            ("m", "", "2026-01-10 00:10:00Z", 99.0, Plain),
            ("m", "", "2026-01-12 05:00:00Z", 99.5, Plain),
            ("m", "", "2026-01-30 07:00:00Z", 100.5, Plain),
        ],
        expect: &[
            (
                "m",
                Day,
                &[
                    ("2026-01-10 00:00:00Z", Some(10.0), false),
                    ("2026-01-12 00:00:00Z", Some(0.0), true),
                    ("2026-01-30 00:00:00Z", Some(0.5), true),
                ],
            ),
            ("m", Month, &[("2026-01-01 00:00:00Z", Some(10.5), true)]),
        ],
    },
    Case {
        name: "two slips, one deeper, and a reset before the maximum was passed",
        zone: UTC,
        readings: &[
            ("m", "", "2026-01-10 00:00:00Z", 100.0, Plain),
            ("m", "", "2026-01-10 00:05:00Z", 80.0, Plain),
            ("m", "", "2026-01-10 00:10:00Z", 90.0, Plain),
            ("m", "", "2026-01-10 00:14:00Z", 50.0, Plain),
            // Under a tenth of 50, the previous value, though not of what 100 would allow to be a slip.
            ("m", "", "2026-01-10 00:20:00Z", 4.0, Plain),
            ("m", "", "2026-01-10 00:25:00Z", 6.0, Plain),
        ],
        expect: &[("m", Hour, &[("2026-01-10 00:00:00Z", Some(6.0), false)])],
    },
    Case {
        name: "a new meter starts with nothing, and the old one goes on where it was",
        zone: UTC,
        readings: &[
            ("m", "A", "2026-01-10 00:00:00Z", 5000.0, Plain),
            ("m", "A", "2026-01-10 00:10:00Z", 5010.0, Plain),
            ("m", "B", "2026-01-10 00:12:00Z", 3.0, Plain),
            ("m", "B", "2026-01-10 00:20:00Z", 13.0, Plain),
            ("m", "A", "2026-01-10 00:21:00Z", 5012.0, Plain),
            ("m", "C", "2026-01-10 01:00:00Z", 900.0, Plain),
        ],
        expect: &[(
            "m",
            Hour,
            &[
                ("2026-01-10 00:00:00Z", Some(22.0), false),
                ("2026-01-10 01:00:00Z", Some(0.0), false),
            ],
        )],
    },
    Case {
        name: "a gap of hours goes to the hour that ends it, estimated",
        zone: UTC,
        readings: &[
            ("m", "", "2026-01-10 00:10:00Z", 100.0, Plain),
            ("m", "", "2026-01-10 06:40:00Z", 700.0, Plain),
            ("m", "", "2026-01-10 06:50:00Z", 710.0, Plain),
            ("m", "", "2026-01-10 07:00:00Z", 711.0, Plain),
        ],
        expect: &[(
            "m",
            Hour,
            &[
                ("2026-01-10 00:00:00Z", Some(0.0), false),
                ("2026-01-10 06:00:00Z", Some(610.0), true),
                ("2026-01-10 07:00:00Z", Some(1.0), false),
            ],
        )],
    },
    Case {
        name: "fifteen minutes apart is not estimated, a microsecond more is",
        zone: UTC,
        readings: &[
            ("exact", "", "2026-01-10 00:10:00Z", 1.0, Plain),
            ("exact", "", "2026-01-10 00:25:00Z", 2.0, Plain),
            ("exact", "", "2026-01-10 00:40:00Z", 3.0, Plain),
            ("exact", "", "2026-01-10 00:55:00Z", 4.0, Plain),
            ("exact", "", "2026-01-10 01:10:00Z", 5.0, Plain),
            ("more", "", "2026-01-10 00:10:00Z", 1.0, Plain),
            ("more", "", "2026-01-10 00:25:00.000001Z", 2.0, Plain),
        ],
        expect: &[
            (
                "exact",
                Hour,
                &[
                    ("2026-01-10 00:00:00Z", Some(3.0), false),
                    ("2026-01-10 01:00:00Z", Some(1.0), false),
                ],
            ),
            ("more", Hour, &[("2026-01-10 00:00:00Z", Some(1.0), true)]),
        ],
    },
    Case {
        name: "two devices at the same times do not mix",
        zone: UTC,
        readings: &[
            ("a", "", "2026-01-10 00:00:00Z", 100.0, Plain),
            ("b", "", "2026-01-10 00:00:00Z", 9000.0, Plain),
            ("a", "", "2026-01-10 00:10:00Z", 101.0, Plain),
            ("b", "", "2026-01-10 00:10:00Z", 9020.0, Plain),
        ],
        expect: &[
            ("a", Hour, &[("2026-01-10 00:00:00Z", Some(1.0), false)]),
            ("b", Hour, &[("2026-01-10 00:00:00Z", Some(20.0), false)]),
        ],
    },
    Case {
        name: "readings of an unsynchronised clock take no part",
        zone: UTC,
        readings: &[
            ("m", "", "2026-01-10 00:00:00Z", 100.0, Plain),
            ("m", "", "2026-01-10 00:05:00Z", 2.0, Unsynced),
            ("m", "", "2026-01-10 00:06:00Z", 9999.0, Unsynced),
            ("m", "", "2026-01-10 00:10:00Z", 110.0, Plain),
            ("m", "", "2026-01-11 00:10:00Z", 120.0, Unsynced),
        ],
        expect: &[("m", Hour, &[("2026-01-10 00:00:00Z", Some(10.0), false)])],
    },
    Case {
        name: "readings without a counter neither gain nor interrupt",
        zone: UTC,
        readings: &[
            ("m", "", "2026-01-10 00:00:00Z", 100.0, Plain),
            ("m", "", "2026-01-10 00:10:00Z", 0.0, PowerOnly),
            ("m", "", "2026-01-10 00:20:00Z", 107.0, Plain),
            ("m", "", "2026-01-10 01:20:00Z", 0.0, PowerOnly),
        ],
        expect: &[(
            "m",
            Hour,
            &[
                ("2026-01-10 00:00:00Z", Some(7.0), true),
                ("2026-01-10 01:00:00Z", None, false),
            ],
        )],
    },
    Case {
        name: "the running hour counts what there is",
        zone: UTC,
        readings: &[
            ("m", "", "2026-01-10 00:00:00Z", 100.0, Plain),
            ("m", "", "2026-01-10 00:01:00Z", 100.5, Plain),
        ],
        expect: &[("m", Hour, &[("2026-01-10 00:00:00Z", Some(0.5), false)])],
    },
    Case {
        name: "the day without 02:30 has 23 hours",
        zone: STOCKHOLM,
        readings: &[
            ("m", "", "2026-03-28 22:59:00Z", 0.0, Plain),
            ("m", "", "2026-03-28 23:00:00Z", 100.0, Plain),
            ("m", "", "2026-03-29 00:59:00Z", 300.0, Plain),
            ("m", "", "2026-03-29 01:00:00Z", 310.0, Plain),
            ("m", "", "2026-03-29 21:59:59Z", 2300.0, Plain),
            ("m", "", "2026-03-29 22:00:00Z", 2301.0, Plain),
        ],
        expect: &[
            (
                "m",
                Day,
                &[
                    ("2026-03-27 23:00:00Z", Some(0.0), false),
                    ("2026-03-28 23:00:00Z", Some(2300.0), true),
                    ("2026-03-29 22:00:00Z", Some(1.0), false),
                ],
            ),
            ("m", Month, &[("2026-02-28 23:00:00Z", Some(2301.0), true)]),
            ("m", Year, &[("2025-12-31 23:00:00Z", Some(2301.0), true)]),
        ],
    },
    Case {
        name: "the day with 02:30 twice has 25 hours, each an hour of its own",
        zone: STOCKHOLM,
        readings: &[
            ("m", "", "2026-10-24 21:59:00Z", 0.0, Plain),
            ("m", "", "2026-10-24 22:00:00Z", 100.0, Plain),
            // 02:30 summer time, then 02:30 winter time.
            ("m", "", "2026-10-25 00:30:00Z", 300.0, Plain),
            ("m", "", "2026-10-25 01:30:00Z", 400.0, Plain),
            ("m", "", "2026-10-25 22:59:59Z", 2500.0, Plain),
            ("m", "", "2026-10-25 23:00:00Z", 2501.0, Plain),
        ],
        expect: &[
            (
                "m",
                Day,
                &[
                    ("2026-10-23 22:00:00Z", Some(0.0), false),
                    ("2026-10-24 22:00:00Z", Some(2500.0), true),
                    ("2026-10-25 23:00:00Z", Some(1.0), false),
                ],
            ),
            (
                "m",
                Hour,
                &[
                    ("2026-10-24 21:00:00Z", Some(0.0), false),
                    ("2026-10-24 22:00:00Z", Some(100.0), false),
                    ("2026-10-25 00:00:00Z", Some(200.0), true),
                    ("2026-10-25 01:00:00Z", Some(100.0), true),
                    ("2026-10-25 22:00:00Z", Some(2100.0), true),
                    ("2026-10-25 23:00:00Z", Some(1.0), false),
                ],
            ),
        ],
    },
    Case {
        name: "in a zone with half hours, hours and days start on the half hour",
        zone: "Asia/Kolkata",
        readings: &[
            ("m", "", "2026-01-10 18:20:00Z", 10.0, Plain),
            ("m", "", "2026-01-10 18:29:59Z", 11.0, Plain),
            ("m", "", "2026-01-10 18:30:00Z", 13.0, Plain),
        ],
        expect: &[
            (
                "m",
                Hour,
                &[
                    ("2026-01-10 17:30:00Z", Some(1.0), false),
                    ("2026-01-10 18:30:00Z", Some(2.0), false),
                ],
            ),
            (
                "m",
                Day,
                &[
                    ("2026-01-09 18:30:00Z", Some(1.0), false),
                    ("2026-01-10 18:30:00Z", Some(2.0), false),
                ],
            ),
        ],
    },
    Case {
        name: "months and years of the household's zone",
        zone: STOCKHOLM,
        readings: &[
            ("m", "", "2025-12-31 22:55:00Z", 1000.0, Plain),
            ("m", "", "2025-12-31 23:05:00Z", 1010.0, Plain),
            ("m", "", "2026-01-31 22:59:00Z", 2000.0, Plain),
            ("m", "", "2026-01-31 23:00:00Z", 2005.0, Plain),
        ],
        expect: &[
            (
                "m",
                Month,
                &[
                    ("2025-11-30 23:00:00Z", Some(0.0), false),
                    ("2025-12-31 23:00:00Z", Some(1000.0), true),
                    ("2026-01-31 23:00:00Z", Some(5.0), false),
                ],
            ),
            (
                "m",
                Year,
                &[
                    ("2024-12-31 23:00:00Z", Some(0.0), false),
                    ("2025-12-31 23:00:00Z", Some(1005.0), true),
                ],
            ),
        ],
    },
];

/// How the readings of a case come in.
#[derive(Clone, Copy, Debug)]
enum Arrival {
    InOrder,
    Backwards,
    AtOnce,
}

const ARRIVALS: [Arrival; 3] = [Arrival::InOrder, Arrival::Backwards, Arrival::AtOnce];

fn device_name(case: usize, arrival: Arrival, device: &str) -> String {
    format!("case{case}-{arrival:?}-{device}")
}

async fn execute(database: &mut PgConnection, statement: impl Into<String>) -> Result<()> {
    let statement = statement.into();
    sqlx::raw_sql(AssertSqlSafe(statement.clone()))
        .execute(database)
        .await
        .with_context(|| statement)?;
    Ok(())
}

async fn rows(database: &mut PgConnection, statement: impl Into<String>) -> Result<Vec<PgRow>> {
    let statement = statement.into();
    sqlx::query(AssertSqlSafe(statement.clone()))
        .fetch_all(database)
        .await
        .with_context(|| statement)
}

async fn insert(database: &mut PgConnection, number: usize, case: &Case, arrival: Arrival) -> Result<()> {
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
    let statements = match arrival {
        Arrival::InOrder => values,
        Arrival::Backwards => values.into_iter().rev().collect(),
        Arrival::AtOnce => vec![values.join(", ")],
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

async fn check(database: &mut PgConnection, moment: &str) -> Result<()> {
    for (number, case) in CASES.iter().enumerate() {
        execute(
            database,
            format!("update household set time_zone = '{}'", case.zone),
        )
        .await?;
        for arrival in ARRIVALS {
            let devices: BTreeSet<&str> = case.expect.iter().map(|(device, _, _)| *device).collect();
            for device in devices {
                adds_up(database, &device_name(number, arrival, device), case.name, moment).await?;
            }
            for (device, bucket, expected) in case.expect {
                let device = device_name(number, arrival, device);
                let (view, start) = bucket.view();
                let found = rows(
                    database,
                    format!(
                        "select to_char({start} at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SSZ') as start,
                            energy_wh, export_wh, estimated
                        from {view} where device_id = '{device}' order by {start}"
                    ),
                )
                .await?;
                let mut got = Vec::new();
                for row in &found {
                    let energy: Option<f64> = row.try_get("energy_wh")?;
                    let export: Option<f64> = row.try_get("export_wh")?;
                    ensure!(
                        export == energy.map(|wh| wh * 2.0),
                        "{moment}: {}: {view} of {device}: export {export:?} with energy {energy:?}",
                        case.name
                    );
                    got.push((
                        row.try_get::<String, _>("start")?,
                        energy,
                        row.try_get::<bool, _>("estimated")?,
                    ));
                }
                let want: Vec<_> = expected
                    .iter()
                    .map(|(start, wh, estimated)| ((*start).to_owned(), *wh, *estimated))
                    .collect();
                ensure!(
                    got == want,
                    "{moment}: {}: {view} of {device}:\n got {got:?}\nwant {want:?}",
                    case.name
                );
            }
        }
    }
    Ok(())
}

/// Quarters, hours, days, months and years of a device have the same sum.
async fn adds_up(database: &mut PgConnection, device: &str, case: &str, moment: &str) -> Result<()> {
    let sums = rows(
        database,
        format!(
            "select
                (
                    select sum(p.energy_wh)
                    from (select distinct quarter_start as start from energy_quarters where device_id = '{device}') q
                    cross join lateral energy_period('{device}', q.start, q.start + interval '15 minutes') p
                ) as quarters,
                (select sum(energy_wh) from energy_hourly where device_id = '{device}') as hours,
                (select sum(energy_wh) from energy_daily_summary where device_id = '{device}') as days,
                (select sum(energy_wh) from energy_monthly_summary where device_id = '{device}') as months,
                (select sum(energy_wh) from energy_yearly_summary where device_id = '{device}') as years"
        ),
    )
    .await?;
    let sum = |name: &str| sums[0].try_get::<f64, _>(name);
    let quarters = sum("quarters")?;
    for name in ["hours", "days", "months", "years"] {
        ensure!(
            (sum(name)? - quarters).abs() < 1e-6,
            "{moment}: {case}: {device}: {name} sum up to {}, quarters to {quarters}",
            sum(name)?
        );
    }
    Ok(())
}

/// A month of readings every 5 minutes in one statement, 10 Wh each, which spans several chunks.
async fn insert_bulk(database: &mut PgConnection) -> Result<()> {
    execute(
        database,
        "insert into energy_consumption (device_id, time, id, agent, clock, energy_wh, power_w)
        select 'bulk', '2026-05-01 00:00:00Z'::timestamptz + n * interval '5 minutes', n::text, 'p0', 'synced', n * 10.0, 120
        from generate_series(0, 30 * 288 - 1) as n",
    )
    .await
}

async fn check_bulk(database: &mut PgConnection, moment: &str) -> Result<()> {
    execute(database, "update household set time_zone = 'UTC'").await?;
    let days = rows(
        database,
        "select energy_wh, average_power_w, count, estimated from energy_daily_summary
        where device_id = 'bulk' and day_start >= '2026-05-02 00:00:00Z' and day_start < '2026-05-31 00:00:00Z'
        order by day_start",
    )
    .await?;
    ensure!(days.len() == 29, "{moment}: {} days of 29", days.len());
    for day in days {
        let wh: f64 = day.try_get("energy_wh")?;
        let watts: f64 = day.try_get("average_power_w")?;
        let count: i64 = day.try_get("count")?;
        ensure!(
            wh == 2880.0 && watts == 120.0 && count == 288,
            "{moment}: {wh} Wh, {watts} W, {count} readings"
        );
    }
    Ok(())
}

/// On-time: a state holds until the next reading, at most 5 minutes, and is cut at the edge of an hour.
async fn insert_states(database: &mut PgConnection) -> Result<()> {
    execute(
        database,
        "insert into plug_status (device_id, time, id, agent, clock, \"on\", energy_wh, power_w) values
            ('plug', '2026-01-10 00:00:00Z', '1', 'p0', 'synced', true, 100, 10),
            ('plug', '2026-01-10 00:03:00Z', '2', 'p0', 'synced', false, 101, 0),
            -- Power without a state does not end a state.
            ('plug', '2026-01-10 00:30:00Z', '3', 'p0', 'synced', true, null, 20),
            ('plug', '2026-01-10 00:31:00Z', '4', 'p0', 'synced', null, null, 30),
            -- On since 00:58: two minutes of it in this hour, three in the next, which has no reading then.
            ('plug', '2026-01-10 00:58:00Z', '5', 'p0', 'synced', true, 111, 40),
            ('plug', '2026-01-10 00:59:00Z', '6', 'p0', 'unsynced', false, 5, 0),
            -- The counter began again.
            ('plug', '2026-01-10 02:00:00Z', '7', 'p0', 'synced', false, 3, 0);
        insert into heatpump_status (device_id, time, id, agent, clock, compressor_on, outdoor_c, integral)
        select 'pump', '2026-01-10 00:00:00Z'::timestamptz + n * interval '30 seconds', n::text, 'p0', 'synced',
            -- Ten minutes off, ten minutes on.
            (n / 20) % 2 = 1, n % 2, -n
        from generate_series(0, 239) as n;
        insert into heatpump_status (device_id, time, id, agent, clock, compressor_on) values
            -- Off is last reported at 02:20, on hours later: one start.
            ('pump', '2026-01-10 02:20:00Z', 'x', 'p0', 'synced', false),
            ('pump', '2026-01-10 05:00:00Z', 'y', 'p0', 'synced', true);
        insert into temperature_sensors (device_id, time, id, agent, clock, location, temperature_c, humidity_percent) values
            ('t', '2026-01-10 00:10:00Z', '1', 'p0', 'synced', 'bedroom', 20, 40),
            ('t', '2026-01-10 00:40:00Z', '2', 'p0', 'corrected', 'bedroom', 23, null),
            ('t', '2026-01-10 00:50:00Z', '3', 'p0', 'unsynced', 'bedroom', 99, null),
            ('t', '2026-01-10 00:55:00Z', '4', 'p0', 'synced', 'attic', 5, null)",
    )
    .await
}

async fn check_states(database: &mut PgConnection, moment: &str) -> Result<()> {
    execute(database, "update household set time_zone = 'UTC'").await?;
    let table = [
        (
            "select to_jsonb(array_agg(array[extract(hour from hour_start), energy_wh, round((on_hours * 60)::numeric, 6),
                average_power_w, count, estimated::int] order by hour_start)) as got from plug_hourly where device_id = 'plug'",
            // 3 + 5 + 2 minutes; the hold of 00:58; nothing.
            "[[0, 11, 10, 20, 5, 1], [1, null, 3, null, 0, 0], [2, 3, 0, 0, 1, 1]]",
        ),
        (
            "select to_jsonb(array_agg(array[extract(hour from hour_start), mean_outdoor_c, mean_integral,
                round((compressor_hours * 60)::numeric, 6), round((hot_water_hours * 60)::numeric, 6), compressor_starts, count]
                order by hour_start)) as got from heatpump_hourly where device_id = 'pump'",
            // The last reading of hour 1, 01:59:30, is on and holds for 5 minutes, 4.5 of them in hour 2.
            "[[0, 0.5, -59.5, 30, null, 3, 120], [1, 0.5, -179.5, 30, null, 3, 120], [2, null, null, 4.5, null, 0, 1],
            [5, null, null, 5, null, 1, 1]]",
        ),
        (
            "select to_jsonb(array_agg(array[round((compressor_hours * 60)::numeric, 6), compressor_starts, count]
                order by day_start)) as got from heatpump_daily_summary where device_id = 'pump'",
            "[[69.5, 7, 242]]",
        ),
        (
            "select jsonb_agg(jsonb_build_array(location, mean_temperature_c, min_temperature_c, max_temperature_c,
                mean_humidity_percent, count) order by location) as got from temperature_hourly where device_id = 't'",
            r#"[["attic", 5, 5, 5, null, 1], ["bedroom", 21.5, 20, 23, 40, 2]]"#,
        ),
    ];
    for (statement, want) in table {
        let got: serde_json::Value = rows(database, statement).await?[0].try_get("got")?;
        let want: serde_json::Value = serde_json::from_str(want)?;
        ensure!(
            equal(&got, &want),
            "{moment}: {statement}:\n got {got}\nwant {want}"
        );
    }
    Ok(())
}

/// Numbers are compared by value: 10 and 10.0 are the same.
fn equal(got: &serde_json::Value, want: &serde_json::Value) -> bool {
    match (got, want) {
        (serde_json::Value::Array(got), serde_json::Value::Array(want)) => {
            got.len() == want.len() && got.iter().zip(want).all(|(got, want)| equal(got, want))
        }
        _ => got == want || got.as_f64().is_some() && got.as_f64() == want.as_f64(),
    }
}

async fn insert_all(database: &mut PgConnection) -> Result<()> {
    for (number, case) in CASES.iter().enumerate() {
        for arrival in ARRIVALS {
            insert(database, number, case, arrival).await?;
        }
    }
    insert_bulk(database).await?;
    insert_states(database).await
}

async fn check_all(database: &mut PgConnection, moment: &str) -> Result<()> {
    check(database, moment).await?;
    check_bulk(database, moment).await?;
    check_states(database, moment).await
}

#[tokio::test]
async fn on_plain_postgresql() -> Result<()> {
    let postgres = Postgres::start(&guardian::run()?.data("energy-rule")?).await?;
    let mut database = PgConnection::connect(&postgres.url("postgres", Database::Telemetry.name())).await?;
    insert_all(&mut database).await?;
    check_all(&mut database, "at once").await?;
    a_deleted_reading_is_forgotten(&mut database, Summaries::Views).await?;
    the_house_is_the_sum_of_its_main_meters(&mut database).await?;
    database.close().await?;
    neighbours_written_at_once(&postgres).await?;
    postgres.stop().await;
    Ok(())
}

#[tokio::test]
async fn on_timescaledb() -> Result<()> {
    let timescale = Timescale::start("energy-rule-timescale").await?;
    let run = timescale
        .run_migrations(&Database::Telemetry.migrations(), &[])
        .await?;
    ensure!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let mut database = PgConnection::connect(&timescale.url()).await?;
    insert_all(&mut database).await?;
    check_all(&mut database, "aggregated on the fly").await?;
    refresh(&mut database).await?;
    check_all(&mut database, "refreshed").await?;

    // Late: into quarters that have been summed up already. The meter slips back between two known readings.
    execute(
        &mut database,
        "insert into energy_consumption (device_id, time, id, agent, clock, energy_wh) values
            ('late', '2026-01-10 00:00:00Z', '1', 'p0', 'synced', 100),
            ('late', '2026-01-10 02:00:00Z', '3', 'p0', 'synced', 120)",
    )
    .await?;
    refresh(&mut database).await?;
    execute(
        &mut database,
        "insert into energy_consumption (device_id, time, id, agent, clock, energy_wh) values
            ('late', '2026-01-10 01:00:00Z', '2', 'p0', 'synced', 90)",
    )
    .await?;
    refresh(&mut database).await?;
    let late =
        "select jsonb_agg(energy_wh order by hour_start) as got from energy_hourly where device_id = 'late'";
    let got: serde_json::Value = rows(&mut database, late).await?[0].try_get("got")?;
    ensure!(equal(&got, &serde_json::json!([0, 0, 20])), "late reading: {got}");

    a_deleted_reading_is_forgotten(&mut database, Summaries::Stored).await?;

    for table in [
        "energy_consumption",
        "plug_status",
        "heatpump_status",
        "temperature_sensors",
    ] {
        execute(
            &mut database,
            format!("select drop_chunks('{table}', '2027-01-01 00:00:00Z'::timestamptz)"),
        )
        .await?;
        let left = rows(&mut database, format!("select 1 from {table}")).await?;
        ensure!(left.is_empty(), "{} rows of {table} are left", left.len());
    }
    check_all(&mut database, "raw rows dropped").await?;

    // A meter that comes back after its raw rows are gone still has its past: this is a reset, not a beginning.
    execute(
        &mut database,
        "insert into energy_consumption (device_id, time, id, agent, clock, energy_wh) values
            ('late', '2026-12-01 00:00:00Z', '4', 'p0', 'synced', 7)",
    )
    .await?;
    // As the policies do: no further back than there are raw rows. All time would wipe what the dropped rows left.
    execute(
        &mut database,
        "call refresh_continuous_aggregate('energy_quarters', '2026-11-01 00:00:00Z'::timestamptz, null)",
    )
    .await?;
    let got: serde_json::Value = rows(&mut database, late).await?[0].try_get("got")?;
    ensure!(
        equal(&got, &serde_json::json!([0, 0, 20, 7])),
        "after a long silence: {got}"
    );

    the_house_is_the_sum_of_its_main_meters(&mut database).await?;
    database.close().await?;
    timescale.stop().await;
    Ok(())
}

/// Where summaries come from.
#[derive(Clone, Copy, PartialEq)]
enum Summaries {
    Views,
    Stored,
}

impl Summaries {
    async fn refresh(self, database: &mut PgConnection) -> Result<()> {
        if self == Summaries::Stored {
            refresh(database).await?;
        }
        Ok(())
    }
}

/// What the policies do from the last 60 days on, here over all time.
async fn refresh(database: &mut PgConnection) -> Result<()> {
    for view in [
        "energy_quarters",
        "temperature_quarters",
        "heatpump_quarters",
        "plug_quarters",
    ] {
        execute(
            database,
            format!("call refresh_continuous_aggregate('{view}', null, null)"),
        )
        .await?;
    }
    Ok(())
}

/// Removing a spurious reading by hand removes what it did to the sums.
async fn a_deleted_reading_is_forgotten(database: &mut PgConnection, summaries: Summaries) -> Result<()> {
    let sum = "select sum(energy_wh)::float8 as wh from energy_hourly where device_id = 'spike'";
    execute(
        database,
        "insert into energy_consumption (device_id, time, id, agent, clock, energy_wh) values
            ('spike', '2026-01-10 00:00:00Z', '1', 'p0', 'synced', 100),
            ('spike', '2026-01-10 00:01:00Z', '2', 'p0', 'synced', 99999),
            ('spike', '2026-01-10 00:02:00Z', '3', 'p0', 'synced', 101)",
    )
    .await?;
    summaries.refresh(database).await?;
    let wh: f64 = rows(database, sum).await?[0].try_get("wh")?;
    ensure!(wh == 99899.0 + 101.0, "a spike up, then a reset: {wh}");
    execute(
        database,
        "delete from energy_consumption where device_id = 'spike' and id = '2'",
    )
    .await?;
    summaries.refresh(database).await?;
    let wh: f64 = rows(database, sum).await?[0].try_get("wh")?;
    ensure!(wh == 1.0, "without the spike: {wh}");
    execute(
        database,
        "update energy_consumption set energy_wh = 150 where device_id = 'spike' and id = '1'",
    )
    .await?;
    summaries.refresh(database).await?;
    let wh: f64 = rows(database, sum).await?[0].try_get("wh")?;
    ensure!(wh == 0.0, "corrected to a slip back: {wh}");
    Ok(())
}

async fn the_house_is_the_sum_of_its_main_meters(database: &mut PgConnection) -> Result<()> {
    let meters = async |database: &mut PgConnection| -> Result<Vec<String>> {
        let found = rows(database, "select device_id from house_meters order by device_id").await?;
        Ok(found
            .iter()
            .map(|row| row.try_get("device_id"))
            .collect::<Result<_, _>>()?)
    };
    execute(database, "begin").await?;
    ensure!(
        meters(database).await?.is_empty(),
        "many devices, none of them named"
    );
    execute(database, "delete from device_spans where device_id <> 'bulk'").await?;
    ensure!(
        meters(database).await? == ["bulk"],
        "the only one is the main one"
    );
    execute(database, "insert into energy_meters values ('bulk', 'sub')").await?;
    ensure!(
        meters(database).await?.is_empty(),
        "unless it is known to be something else"
    );
    execute(
        database,
        "insert into energy_meters values ('a', 'main'), ('b', 'main'), ('c', 'production')",
    )
    .await?;
    ensure!(
        meters(database).await? == ["a", "b"],
        "what is named main is main"
    );
    execute(database, "rollback").await
}

/// Two transactions that write readings of one counter at the same time: each sees the other's, whoever commits first.
async fn neighbours_written_at_once(postgres: &Postgres) -> Result<()> {
    let url = postgres.url("sink", Database::Telemetry.name());
    let mut first = PgConnection::connect(&url).await?;
    let mut second = PgConnection::connect(&url).await?;
    let values = |time: &str, wh: f64| {
        format!(
            "insert into energy_consumption (device_id, time, id, agent, clock, energy_wh)
            values ('both', '{time}', '{time}', 'p0', 'synced', {wh})"
        )
    };
    // The day is known beforehand: two transactions that both bring a new one wait for each other already there.
    execute(&mut first, values("2026-01-10 23:00:00Z", 101.0)).await?;
    execute(&mut first, "begin").await?;
    execute(&mut first, values("2026-01-10 00:00:00Z", 100.0)).await?;
    let later = tokio::spawn(async move {
        execute(&mut second, values("2026-01-10 00:05:00Z", 99.0)).await?;
        execute(&mut second, values("2026-01-10 00:10:00Z", 101.0)).await
    });
    // It waits for the first transaction; that it does is what makes the difference.
    let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted";
    stack::part::eventually("the second transaction waits", e2e::WITHIN, async || {
        Ok((postgres.psql(Database::Telemetry.name(), waiting).await? == "1").then_some(()))
    })
    .await?;
    execute(&mut first, "commit").await?;
    later.await??;
    let sum = "select sum(energy_wh) from energy_hourly where device_id = 'both'";
    let wh = postgres.psql(Database::Telemetry.name(), sum).await?;
    ensure!(wh == "1", "100, 99, 101 gain 1, not {wh}");
    Ok(())
}
