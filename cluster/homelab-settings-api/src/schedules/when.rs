//! When a daily run is made: a local date and time as one instant.
//!
//! The hour that does not exist (clocks go forward) runs at the first instant after the gap. The hour that exists twice
//! (clocks go back) runs once, at its first.

use chrono::{DateTime, Datelike, Days, LocalResult, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

/// Longest gap that is looked over: Samoa once left out a whole day.
const LONGEST_GAP_MINUTES: i64 = 25 * 60;

/// The instant of a local date and time. None only where no zone has such a time.
pub(crate) fn instant(zone: Tz, date: NaiveDate, time: NaiveTime) -> Option<DateTime<Utc>> {
    let local = date.and_time(time);
    // Zones change on whole minutes of local time, so the first minute that exists is the end of the gap.
    (0..=LONGEST_GAP_MINUTES).find_map(|minutes| {
        let local = if minutes == 0 {
            local
        } else {
            let at = local + TimeDelta::minutes(minutes);
            at.date()
                .and_hms_opt(chrono::Timelike::hour(&at), chrono::Timelike::minute(&at), 0)?
        };
        match zone.from_local_datetime(&local) {
            LocalResult::Single(at) => Some(at.to_utc()),
            LocalResult::Ambiguous(first, _) => Some(first.to_utc()),
            LocalResult::None => None,
        }
    })
}

/// A daily run: on these ISO weekdays (1 Monday to 7 Sunday), at this local time.
#[derive(Clone, Debug)]
pub(crate) struct Daily {
    pub(crate) weekdays: Vec<i16>,
    pub(crate) time: NaiveTime,
}

impl Daily {
    /// The run of a local date, if it has one.
    pub(crate) fn on(&self, zone: Tz, date: NaiveDate) -> Option<DateTime<Utc>> {
        let weekday = date.weekday().number_from_monday() as i16;
        if self.weekdays.contains(&weekday) {
            instant(zone, date, self.time)
        } else {
            None
        }
    }

    /// The first run after `now`.
    pub(crate) fn next(&self, zone: Tz, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let today = now.with_timezone(&zone).date_naive();
        // A week and a day: today's run may be over. Yesterday's may lie behind a gap at midnight.
        let first = today.checked_sub_days(Days::new(1))?;
        first
            .iter_days()
            .take(10)
            .filter_map(|date| self.on(zone, date))
            .find(|at| *at > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(zone: &str, date: &str, time: &str) -> String {
        let zone: Tz = zone.parse().unwrap();
        let instant = instant(zone, date.parse().unwrap(), time.parse().unwrap());
        instant
            .unwrap()
            .to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
    }

    #[test]
    fn local_times_become_instants() {
        let home = "Europe/Stockholm";
        let check = |zone, date, time, want: &str| {
            assert_eq!(at(zone, date, time), want, "{zone} {date} {time}");
        };
        check(home, "2026-01-15", "07:00:00", "2026-01-15T06:00:00Z");
        check(home, "2026-07-15", "07:00:00", "2026-07-15T05:00:00Z");
        // Clocks go from 02:00 to 03:00: what lies between runs at 03:00 CEST.
        check(home, "2026-03-29", "01:59:00", "2026-03-29T00:59:00Z");
        check(home, "2026-03-29", "02:00:00", "2026-03-29T01:00:00Z");
        check(home, "2026-03-29", "02:30:00", "2026-03-29T01:00:00Z");
        check(home, "2026-03-29", "02:59:30", "2026-03-29T01:00:00Z");
        check(home, "2026-03-29", "03:00:00", "2026-03-29T01:00:00Z");
        // Clocks go from 03:00 to 02:00: what lies between comes twice and runs the first time, in CEST.
        check(home, "2026-10-25", "01:59:00", "2026-10-24T23:59:00Z");
        check(home, "2026-10-25", "02:30:00", "2026-10-25T00:30:00Z");
        check(home, "2026-10-25", "03:00:00", "2026-10-25T02:00:00Z");
        // Half an hour, midnight that does not exist, and a whole day that does not.
        check(
            "Australia/Lord_Howe",
            "2026-10-04",
            "02:15:00",
            "2026-10-03T15:30:00Z",
        );
        check(
            "America/Asuncion",
            "2020-10-04",
            "00:20:00",
            "2020-10-04T04:00:00Z",
        );
        check("Pacific/Apia", "2011-12-30", "12:00:00", "2011-12-30T10:00:00Z");
    }

    #[test]
    fn the_next_run_is_on_one_of_its_days() {
        let zone: Tz = "Europe/Stockholm".parse().unwrap();
        let check = |weekdays: &[i16], time: &str, now: &str, want: &str| {
            let daily = Daily {
                weekdays: weekdays.to_vec(),
                time: time.parse().unwrap(),
            };
            let next = daily.next(zone, now.parse().unwrap()).unwrap();
            assert_eq!(
                next,
                want.parse::<DateTime<Utc>>().unwrap(),
                "{weekdays:?} {time} {now}"
            );
        };
        // 2026-03-27 is a Friday.
        check(&[5], "07:00:00", "2026-03-27T05:59:59Z", "2026-03-27T06:00:00Z");
        check(&[5], "07:00:00", "2026-03-27T06:00:00Z", "2026-04-03T05:00:00Z");
        check(
            &[6, 7],
            "02:30:00",
            "2026-03-28T12:00:00Z",
            "2026-03-29T01:00:00Z",
        );
        check(&[1], "00:00:00", "2026-03-28T12:00:00Z", "2026-03-29T22:00:00Z");
        check(&[7], "02:30:00", "2026-10-25T00:30:00Z", "2026-11-01T01:30:00Z");
    }
}
