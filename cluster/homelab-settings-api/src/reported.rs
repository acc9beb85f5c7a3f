//! What devices report of themselves: taken from records, folded to the newest per device, written to the database.
//!
//! Only a record that is newer than what is known changes anything, so records may come again and in any order.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use sqlx::PgConnection;
use telemetry::{Clock, HeatpumpSettings, Reading, Record};

/// How far a record's time may be ahead of this machine's (the sink's limit as well). A time further ahead would keep
/// every later record from being taken.
const AHEAD: TimeDelta = TimeDelta::hours(1);

/// Whether a device or an agent can have written this time, by the sink's own limits: not before 2020, when nothing of this
/// software existed, and not far ahead of `now`. The calendar holds times that the database does not.
pub(crate) fn is_possible(time: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    let earliest = Utc.with_ymd_and_hms(2020, 1, 1, 0, 0, 0).single();
    earliest.is_some_and(|earliest| time >= earliest) && time <= now + AHEAD
}

/// Why a record changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skipped {
    /// It holds no settings and no state.
    NothingReported,
    /// Its time cannot be right: ahead of this machine's clock.
    Ahead,
    /// Its time is before this software.
    BadTime,
    /// Its agent's name cannot be stored.
    BadAgent,
}

/// The newest of what one device reported.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Report {
    agent: String,
    time: DateTime<Utc>,
    body: Body,
}

#[derive(Clone, Debug, PartialEq)]
enum Body {
    Heatpump(HeatpumpSettings),
    Plug { on: bool },
}

/// What a device is reported as.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Heatpump(String),
    Plug(String),
}

/// The newest reports of a batch, one a device, in one order: two writers never wait for each other.
#[derive(Debug, Default)]
pub(crate) struct Reports(BTreeMap<Subject, Report>);

impl Reports {
    /// Takes a record into the batch. `now` is this machine's time.
    pub(crate) fn take(&mut self, record: Record, now: DateTime<Utc>) -> Result<(), Skipped> {
        let device = String::from(record.device_id);
        let (subject, body) = match record.reading {
            Reading::Heatpump(reading) => match reading.settings {
                Some(settings) if !settings.is_empty() => {
                    (Subject::Heatpump(device), Body::Heatpump(settings))
                }
                _ => return Err(Skipped::NothingReported),
            },
            Reading::Plug(reading) => match reading.on {
                Some(on) => (Subject::Plug(device), Body::Plug { on }),
                None => return Err(Skipped::NothingReported),
            },
            Reading::Temperature(_) | Reading::Energy(_) => return Err(Skipped::NothingReported),
        };
        // A clock that was never set runs behind, if it is anything; one that runs ahead proves nothing.
        let limit = if record.clock == Clock::Unsynced {
            now
        } else {
            now + AHEAD
        };
        if record.time > limit {
            return Err(Skipped::Ahead);
        }
        if !is_possible(record.time, now) {
            return Err(Skipped::BadTime);
        }
        if record.agent.is_empty() || record.agent.chars().any(char::is_control) {
            return Err(Skipped::BadAgent);
        }
        let report = Report {
            agent: record.agent,
            time: record.time,
            body,
        };
        match self.0.get_mut(&subject) {
            Some(known) => known.update(report),
            None => {
                self.0.insert(subject, report);
            }
        }
        Ok(())
    }

    /// Whether nothing was taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes all of them. The caller owns the transaction.
    pub(crate) async fn write(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        for (subject, report) in &self.0 {
            report.write(subject, connection).await?;
        }
        Ok(())
    }

    /// Writes each on its own, for the case that one of them is refused. Answers how many were; stops at an error that
    /// is not the data's fault.
    pub(crate) async fn write_singly(&self, connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
        let mut refused = 0;
        for (subject, report) in &self.0 {
            match report.write(subject, connection).await {
                Err(error) if crate::database::is_the_data(&error) => {
                    tracing::error!("the database refuses what {subject:?} reported: {error}");
                    refused += 1;
                }
                other => other?,
            }
        }
        Ok(refused)
    }
}

impl Report {
    /// A newer report changes the fields it has; an older one changes nothing.
    fn update(&mut self, newer: Report) {
        if newer.time <= self.time {
            return;
        }
        self.body = match (&self.body, newer.body) {
            (Body::Heatpump(known), Body::Heatpump(settings)) => Body::Heatpump(merged(known, settings)),
            (_, body) => body,
        };
        self.agent = newer.agent;
        self.time = newer.time;
    }

    async fn write(&self, subject: &Subject, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        match (&self.body, subject) {
            (Body::Heatpump(settings), Subject::Heatpump(device) | Subject::Plug(device)) => {
                self.write_settings(device, settings, connection).await
            }
            (Body::Plug { on }, Subject::Heatpump(device) | Subject::Plug(device)) => {
                self.write_plug(device, *on, connection).await
            }
        }
    }

    async fn write_settings(
        &self,
        device: &str,
        settings: &HeatpumpSettings,
        connection: &mut PgConnection,
    ) -> Result<(), sqlx::Error> {
        // A field the record does not have keeps what was reported before.
        sqlx::query(
            "insert into settings as known (device_id, agent, reported_at, indoor_target_c, mode, curve, curve_min,
                 curve_max, curve_plus_5, curve_zero, curve_minus_5, heat_stop_c, integral)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
             on conflict (device_id) do update set
                 agent = excluded.agent, reported_at = excluded.reported_at, updated_at = now(),
                 indoor_target_c = coalesce(excluded.indoor_target_c, known.indoor_target_c),
                 mode = coalesce(excluded.mode, known.mode),
                 curve = coalesce(excluded.curve, known.curve),
                 curve_min = coalesce(excluded.curve_min, known.curve_min),
                 curve_max = coalesce(excluded.curve_max, known.curve_max),
                 curve_plus_5 = coalesce(excluded.curve_plus_5, known.curve_plus_5),
                 curve_zero = coalesce(excluded.curve_zero, known.curve_zero),
                 curve_minus_5 = coalesce(excluded.curve_minus_5, known.curve_minus_5),
                 heat_stop_c = coalesce(excluded.heat_stop_c, known.heat_stop_c),
                 integral = coalesce(excluded.integral, known.integral)
             where known.reported_at < excluded.reported_at",
        )
        .bind(device)
        .bind(&self.agent)
        .bind(self.time)
        .bind(settings.indoor_target_c)
        .bind(settings.mode)
        .bind(settings.curve)
        .bind(settings.curve_min)
        .bind(settings.curve_max)
        .bind(settings.curve_plus_5)
        .bind(settings.curve_zero)
        .bind(settings.curve_minus_5)
        .bind(settings.heat_stop_c)
        .bind(settings.integral)
        .execute(connection)
        .await?;
        Ok(())
    }

    async fn write_plug(
        &self,
        plug: &str,
        on: bool,
        connection: &mut PgConnection,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "insert into power_plugs as known (plug_id, agent, is_on, reported_at) values ($1, $2, $3, $4)
             on conflict (plug_id) do update set
                 agent = excluded.agent, is_on = excluded.is_on, reported_at = excluded.reported_at, updated_at = now()
             where known.reported_at is null or known.reported_at < excluded.reported_at",
        )
        .bind(plug)
        .bind(&self.agent)
        .bind(on)
        .bind(self.time)
        .execute(connection)
        .await?;
        Ok(())
    }
}

fn merged(known: &HeatpumpSettings, newer: HeatpumpSettings) -> HeatpumpSettings {
    HeatpumpSettings {
        indoor_target_c: newer.indoor_target_c.or(known.indoor_target_c),
        mode: newer.mode.or(known.mode),
        curve: newer.curve.or(known.curve),
        curve_min: newer.curve_min.or(known.curve_min),
        curve_max: newer.curve_max.or(known.curve_max),
        curve_plus_5: newer.curve_plus_5.or(known.curve_plus_5),
        curve_zero: newer.curve_zero.or(known.curve_zero),
        curve_minus_5: newer.curve_minus_5.or(known.curve_minus_5),
        heat_stop_c: newer.heat_stop_c.or(known.heat_stop_c),
        integral: newer.integral.or(known.integral),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T12:00:00Z";

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn record(time: &str, clock: Clock, reading: Reading) -> Record {
        Record {
            id: format!("p0/1/{time}"),
            agent: "p0".into(),
            device_id: telemetry::DeviceId::parse("device").unwrap(),
            time: at(time),
            clock,
            location: None,
            reading,
        }
    }

    fn pump(indoor_target_c: Option<i64>, mode: Option<i64>) -> Reading {
        let settings = HeatpumpSettings {
            indoor_target_c,
            mode,
            ..HeatpumpSettings::default()
        };
        Reading::Heatpump(Box::new(telemetry::Heatpump {
            settings: Some(settings),
            ..Default::default()
        }))
    }

    fn plug(on: Option<bool>) -> Reading {
        Reading::Plug(telemetry::Plug {
            on,
            ..Default::default()
        })
    }

    #[test]
    fn the_newest_report_of_a_batch_wins_field_by_field() {
        let mut reports = Reports::default();
        for (time, reading) in [
            ("2026-01-01T10:00:00Z", pump(Some(20), Some(1))),
            ("2026-01-01T11:00:00Z", pump(Some(22), None)),
            ("2026-01-01T10:30:00Z", pump(Some(18), Some(4))),
            ("2026-01-01T10:00:00Z", plug(Some(true))),
            ("2026-01-01T09:00:00Z", plug(Some(false))),
        ] {
            reports
                .take(record(time, Clock::Synced, reading), at(NOW))
                .unwrap();
        }
        let pump = &reports.0[&Subject::Heatpump("device".into())];
        let settings = HeatpumpSettings {
            indoor_target_c: Some(22),
            mode: Some(1),
            ..HeatpumpSettings::default()
        };
        assert_eq!(
            (pump.time, &pump.body),
            (at("2026-01-01T11:00:00Z"), &Body::Heatpump(settings))
        );
        let plug = &reports.0[&Subject::Plug("device".into())];
        assert_eq!(
            (plug.time, &plug.body),
            (at("2026-01-01T10:00:00Z"), &Body::Plug { on: true })
        );
    }

    #[test]
    fn what_reports_nothing_or_cannot_be_right_is_skipped() {
        let check = |time: &str, clock, reading, want| {
            let got = Reports::default().take(record(time, clock, reading), at(NOW));
            assert_eq!(got, want, "{time}");
        };
        let (synced, unsynced) = (Clock::Synced, Clock::Unsynced);
        check(NOW, synced, plug(None), Err(Skipped::NothingReported));
        check(NOW, synced, pump(None, None), Err(Skipped::NothingReported));
        check(
            NOW,
            synced,
            Reading::Energy(telemetry::Energy::default()),
            Err(Skipped::NothingReported),
        );
        check("2026-01-01T12:59:00Z", synced, plug(Some(true)), Ok(()));
        check(
            "2026-01-01T13:01:00Z",
            synced,
            plug(Some(true)),
            Err(Skipped::Ahead),
        );
        check("2020-01-01T00:00:00Z", unsynced, plug(Some(true)), Ok(()));
        check(
            "2026-01-01T12:00:01Z",
            unsynced,
            plug(Some(true)),
            Err(Skipped::Ahead),
        );
        let mut odd = record(NOW, synced, plug(Some(true)));
        odd.agent = "p0\0".into();
        assert_eq!(Reports::default().take(odd, at(NOW)), Err(Skipped::BadAgent));
    }
}
