//! The cases of the energy rule, computed by hand.

/// A reading: device, meter ("" for none), time in UTC, counter, and what else.
pub type Reading = (&'static str, &'static str, &'static str, f64, Kind);

/// What is particular about a reading.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// Nothing.
    Plain,
    /// Its clock was never synchronised.
    Unsynced,
    /// It carries power, and no counter.
    PowerOnly,
}
pub use Kind::{Plain, PowerOnly, Unsynced};

/// All rows of one view for one device: start, energy in Wh, whether it is estimated.
pub type Rows = &'static [(&'static str, Option<f64>, bool)];

pub struct Case {
    pub name: &'static str,
    pub zone: &'static str,
    pub readings: &'static [Reading],
    /// Device, bucket, rows.
    pub expect: &'static [(&'static str, Bucket, Rows)],
}

#[derive(Clone, Copy)]
pub enum Bucket {
    Hour,
    Day,
    Month,
    Year,
}
use Bucket::{Day, Hour, Month, Year};

impl Bucket {
    pub fn view(self) -> (&'static str, &'static str) {
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

pub const CASES: &[Case] = &[
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
