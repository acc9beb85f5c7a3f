//! The house all simulated devices stand in: weather, loads, heat pump, counters. A pure function of seed and
//! time: asked twice for the same instant it gives the same answer, in any order and across restarts, so a
//! counter never jumps back and never has to be stored.
//!
//! It has no idea of MQTT, and it never reads a clock.
//!
//! A day is painted in steps of ten seconds with constant power; counters are sums of whole steps plus the
//! part of the step that has passed, so energy is exactly the integral of the power that was reported.
//! Counters at midnight are summed from a fixed first day and remembered.

mod plan;

use std::collections::BTreeMap;
use std::f64::consts::PI;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};

use plan::{AUX_3KW, COMPRESSOR, HOT_WATER, Plan, STEP_SECONDS, STEPS};

const DAY_SECONDS: i64 = 86_400;

/// The house keeps Central European winter time the whole year: when dinner is cooked need not know of
/// daylight saving.
const LOCAL_OFFSET_SECONDS: i64 = 3_600;

/// Local day (counted from 1970) on which the counters have their starting values: 2026-01-01.
const FIRST_DAY: i64 = 20_454;

/// Days kept painted: a back-fill and the live devices move through time on their own.
const PAINTED_DAYS: usize = 4;

/// Ripple within a step, second by second: it sums to zero, so that a whole step keeps its energy.
const RIPPLE: [f64; 10] = [0.3, -0.6, 1.0, -0.2, -0.9, 0.8, -0.4, 0.6, -1.0, 0.4];

/// A simulated house.
pub struct House {
    seed: u64,
    solar: bool,
    meter: MeterKind,
    days: Mutex<Days>,
}

/// Which meter reads the house connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MeterKind {
    /// SaveEye on the grid company's meter.
    #[default]
    Saveeye,
    /// Shelly Pro 3EM.
    Pro3em,
}

#[derive(Default)]
struct Days {
    /// Counters at the local midnight a day starts with.
    midnights: BTreeMap<i64, Counters>,
    painted: Vec<(i64, Arc<Day>)>,
}

/// Everything in the house that only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counters {
    /// Drawn from the grid, watt hours.
    pub import_wh: f64,
    /// Delivered to the grid, watt hours.
    pub export_wh: f64,
    /// Compressor on, seconds.
    pub compressor_seconds: f64,
    /// Hot water made, seconds.
    pub hot_water_seconds: f64,
    /// 3 kW heater on, seconds.
    pub aux_3kw_seconds: f64,
    /// Television, watt hours.
    pub television_wh: f64,
    /// Fridge, watt hours.
    pub fridge_wh: f64,
}

/// What a meter at the house connection sees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Net power of each phase, watts; negative is delivered.
    pub phase_w: [f64; 3],
    /// Voltage of each phase.
    pub voltage_v: [f64; 3],
    /// Counters.
    pub counters: Counters,
}

impl Grid {
    /// Net power of the house; negative is delivered.
    pub fn power_w(&self) -> f64 {
        self.phase_w.iter().sum()
    }

    /// Current of each phase, amperes, always positive.
    pub fn current_a(&self) -> [f64; 3] {
        std::array::from_fn(|phase| self.phase_w[phase].abs() / POWER_FACTOR / self.voltage_v[phase])
    }
}

/// Motors and power supplies together; the same at all times.
pub const POWER_FACTOR: f64 = 0.97;

/// What the heat pump measures of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pump {
    /// Compressor runs.
    pub compressor_on: bool,
    /// Hot water is being made.
    pub hot_water_on: bool,
    /// The 3 kW heater helps.
    pub aux_3kw_on: bool,
    /// Supply line, degrees Celsius.
    pub supply_c: f64,
    /// Return line.
    pub return_c: f64,
    /// Hot water.
    pub hot_water_c: f64,
    /// Brine into the pump.
    pub brine_in_c: f64,
    /// Brine out of the pump.
    pub brine_out_c: f64,
    /// Heat deficit, degree-minutes.
    pub integral: f64,
    /// Flow-line pump, percent.
    pub flow_pump_percent: f64,
    /// Counters.
    pub counters: Counters,
}

/// A plug and what hangs on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appliance {
    /// In the living room, mostly in the evening.
    Television,
    /// Day and night, in cycles.
    Fridge,
}

/// One day, painted.
struct Day {
    plan: Plan,
    /// Counters at the start of each step.
    counters: Vec<Counters>,
    /// Warmth of the heating circuit at the start of each step, 0 cold to 1.
    heat: Vec<f32>,
    /// Hot water, degrees Celsius.
    hot_water_c: Vec<f32>,
}

/// An instant as the house counts it.
#[derive(Clone, Copy)]
struct Instant {
    day: i64,
    step: usize,
    /// Seconds passed in the step, 0 to 10.
    passed: f64,
}

impl Instant {
    fn of(time: DateTime<Utc>) -> Self {
        let local = time.timestamp() + LOCAL_OFFSET_SECONDS;
        let in_day = local.rem_euclid(DAY_SECONDS);
        Self {
            day: local.div_euclid(DAY_SECONDS),
            step: usize::try_from(in_day / STEP_SECONDS).expect("a remainder is not negative"),
            passed: (in_day % STEP_SECONDS) as f64 + f64::from(time.timestamp_subsec_micros()) / 1e6,
        }
    }
}

impl House {
    /// A house without solar panels, read by a SaveEye. The seed chooses device ids, weather and habits.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            solar: false,
            meter: MeterKind::default(),
            days: Mutex::default(),
        }
    }

    /// The same house with seven kilowatts of solar panels.
    pub fn with_solar(self) -> Self {
        Self {
            solar: true,
            days: Mutex::default(),
            ..self
        }
    }

    /// The same house with another meter.
    pub fn with_meter(self, meter: MeterKind) -> Self {
        Self { meter, ..self }
    }

    /// The meter.
    pub fn meter(&self) -> MeterKind {
        self.meter
    }

    /// The seed it was made with.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Outdoor temperature, degrees Celsius: season, time of day, weather.
    pub fn outdoor_c(&self, time: DateTime<Utc>) -> f64 {
        self.outdoor_at(seconds(time))
    }

    /// Temperature and relative humidity of a room; rooms are numbered.
    pub fn room(&self, room: u64, time: DateTime<Utc>) -> (f64, f64) {
        let at = seconds(time);
        let own = self.unit(20 + room, 0) * 2.0 - 1.0;
        let evening = (2.0 * PI * (local_hours(at) - 14.0) / 24.0).sin();
        let temperature = 21.0
            + own
            + 0.4 * evening
            + 0.5 * self.noise(30 + room, at / 5_400.0)
            + 0.02 * (self.outdoor_at(at) - 7.0);
        let humidity = 42.0
            + 6.0 * self.unit(40 + room, 0)
            + 5.0 * self.noise(50 + room, at / 7_200.0)
            + 0.5 * self.outdoor_at(at).clamp(-10.0, 20.0);
        (temperature, humidity.clamp(15.0, 85.0))
    }

    /// The house connection.
    pub fn grid(&self, time: DateTime<Utc>) -> Grid {
        let at = Instant::of(time);
        let day = self.day(at.day);
        let ripple_w = day.plan.ripple_w(at.step);
        let mut phase_w = day.plan.net_w(at.step);
        phase_w[0] += ripple_w * RIPPLE[(at.passed as usize).min(RIPPLE.len() - 1)];
        let voltage_v = std::array::from_fn(|phase| {
            let tag = 60 + phase as u64;
            231.0 + 2.0 * self.noise(tag, seconds(time) / 240.0) - phase_w[phase] / 2_000.0
        });
        Grid {
            phase_w,
            voltage_v,
            counters: day.counters_at(at),
        }
    }

    /// The heat pump.
    pub fn pump(&self, time: DateTime<Utc>) -> Pump {
        let at = Instant::of(time);
        let day = self.day(at.day);
        let flags = day.plan.flags[at.step];
        let compressor_on = flags & COMPRESSOR != 0;
        let heat = f64::from(day.heat[at.step]);
        let outdoor = self.outdoor_c(time);
        let wanted_c = (38.0 - 0.7 * outdoor).clamp(22.0, 55.0);
        let supply_c = 24.0 + (wanted_c + 3.0 - 24.0) * heat;
        let brine_in_c = 3.0 + 1.5 * self.noise(70, seconds(time) / 40_000.0) - 1.2 * heat;
        Pump {
            compressor_on,
            hot_water_on: flags & HOT_WATER != 0,
            aux_3kw_on: flags & AUX_3KW != 0,
            supply_c,
            return_c: supply_c - 1.0 - 5.0 * heat,
            hot_water_c: f64::from(day.hot_water_c[at.step]),
            brine_in_c,
            brine_out_c: brine_in_c - if compressor_on { 3.5 } else { 0.3 },
            integral: -220.0 + 190.0 * heat,
            flow_pump_percent: if compressor_on { 62.0 } else { 35.0 },
            counters: day.counters_at(at),
        }
    }

    /// Power in watts of an appliance that is switched on, and its counter in watt hours.
    pub fn appliance(&self, appliance: Appliance, time: DateTime<Utc>) -> (f64, f64) {
        let at = Instant::of(time);
        let day = self.day(at.day);
        let counters = day.counters_at(at);
        match appliance {
            Appliance::Television => (f64::from(day.plan.television_w[at.step]), counters.television_wh),
            Appliance::Fridge => (f64::from(day.plan.fridge_w[at.step]), counters.fridge_wh),
        }
    }

    /// A number from the seed, the same for the same tag and index.
    pub fn hash(&self, tag: u64, index: i64) -> u64 {
        // SplitMix64: short, and fixed for ever, unlike the generators of a library.
        let mut z = self.seed
            ^ tag.wrapping_mul(0xd6e8_feb8_6659_fd93)
            ^ (index as u64).wrapping_mul(0xa076_1d64_78bd_642f);
        for _ in 0..2 {
            z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
        }
        z
    }

    /// 0 to 1.
    fn unit(&self, tag: u64, index: i64) -> f64 {
        (self.hash(tag, index) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Smooth noise, -1 to 1, one new value for each whole `x`.
    fn noise(&self, tag: u64, x: f64) -> f64 {
        let (whole, part) = (x.floor() as i64, x - x.floor());
        let smooth = part * part * (3.0 - 2.0 * part);
        let (a, b) = (self.unit(tag, whole), self.unit(tag, whole + 1));
        (a + (b - a) * smooth) * 2.0 - 1.0
    }

    fn outdoor_at(&self, at: f64) -> f64 {
        let day_of_year = (at / DAY_SECONDS as f64) % 365.25;
        let season = 7.0 + 10.5 * (2.0 * PI * (day_of_year - 110.0) / 365.25).sin();
        let daily = 2.8 * (2.0 * PI * (local_hours(at) - 9.0) / 24.0).sin();
        season + daily + 4.0 * self.noise(10, at / 200_000.0) + 1.2 * self.noise(11, at / 20_000.0)
    }

    fn day(&self, day: i64) -> Arc<Day> {
        // A painter that panicked left nothing half done: days are added whole.
        let mut days = self.days.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, painted)) = days.painted.iter().find(|(known, _)| *known == day) {
            return painted.clone();
        }
        let painted = Arc::new(self.paint(day, self.midnight(&mut days.midnights, day)));
        if days.painted.len() == PAINTED_DAYS {
            days.painted.remove(0);
        }
        days.painted.push((day, painted.clone()));
        painted
    }

    /// Counters at the start of a day: summed from the nearest day known, forward or back.
    fn midnight(&self, known: &mut BTreeMap<i64, Counters>, day: i64) -> Counters {
        known.entry(FIRST_DAY).or_insert(Counters {
            import_wh: 41_230_187.0,
            export_wh: if self.solar { 8_120_044.0 } else { 0.0 },
            compressor_seconds: 41_231.0 * 3_600.0,
            hot_water_seconds: 8_123.0 * 3_600.0,
            aux_3kw_seconds: 120.0 * 3_600.0,
            television_wh: 212_345.0,
            fridge_wh: 96_532.0,
        });
        if day >= FIRST_DAY {
            let (&from, &start) = known.range(..=day).next_back().expect("the first day is known");
            (from..day).fold(start, |start, between| {
                let next = start.plus(self.plan(between).total(), 1.0);
                known.insert(between + 1, next);
                next
            })
        } else {
            let (&from, &start) = known.range(day..).next().expect("the first day is known");
            (day..from).rev().fold(start, |start, between| {
                let earlier = start.plus(self.plan(between).total(), -1.0);
                known.insert(between, earlier);
                earlier
            })
        }
    }

    fn paint(&self, day: i64, midnight: Counters) -> Day {
        let plan = self.plan(day);
        let mut counters = Vec::with_capacity(STEPS);
        let mut now = midnight;
        for step in 0..STEPS {
            counters.push(now);
            now = now.plus(plan.step(step), 1.0);
        }
        // Temperatures follow with a delay. A day of running in before makes them meet at midnight.
        let before = self.plan(day - 1);
        let (mut heat, mut water) = (0.5_f32, 48.0_f32);
        let mut follow = |flags: u8| {
            let heating = flags & COMPRESSOR != 0 && flags & HOT_WATER == 0;
            heat += (f32::from(u8::from(heating)) - heat) * if heating { 0.02 } else { 0.009 };
            let (goal, pace) = if flags & HOT_WATER != 0 {
                (58.0, 0.006)
            } else {
                (38.0, 0.000_6)
            };
            water += (goal - water) * pace;
            (heat, water)
        };
        for flags in &before.flags {
            follow(*flags);
        }
        let (heat, hot_water_c) = plan.flags.iter().map(|flags| follow(*flags)).unzip();
        Day {
            plan,
            counters,
            heat,
            hot_water_c,
        }
    }
}

impl Day {
    fn counters_at(&self, at: Instant) -> Counters {
        let mut now = self.counters[at.step].plus(self.plan.step(at.step), at.passed / STEP_SECONDS as f64);
        let whole = (at.passed as usize).min(RIPPLE.len() - 1);
        let ripple: f64 = RIPPLE[..whole].iter().sum::<f64>() + RIPPLE[whole] * (at.passed - whole as f64);
        let ripple_wh = self.plan.ripple_w(at.step) * ripple / 3_600.0;
        if self.plan.net_w(at.step).iter().sum::<f64>() >= 0.0 {
            now.import_wh += ripple_wh;
        } else {
            now.export_wh -= ripple_wh;
        }
        now
    }
}

impl Counters {
    fn plus(self, other: Counters, share: f64) -> Counters {
        Counters {
            import_wh: self.import_wh + other.import_wh * share,
            export_wh: self.export_wh + other.export_wh * share,
            compressor_seconds: self.compressor_seconds + other.compressor_seconds * share,
            hot_water_seconds: self.hot_water_seconds + other.hot_water_seconds * share,
            aux_3kw_seconds: self.aux_3kw_seconds + other.aux_3kw_seconds * share,
            television_wh: self.television_wh + other.television_wh * share,
            fridge_wh: self.fridge_wh + other.fridge_wh * share,
        }
    }
}

fn seconds(time: DateTime<Utc>) -> f64 {
    time.timestamp_micros() as f64 / 1e6
}

fn local_hours(at: f64) -> f64 {
    ((at + LOCAL_OFFSET_SECONDS as f64) / 3_600.0) % 24.0
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn the_same_instant_is_the_same_in_any_order_and_after_a_restart() {
        let instants = [
            "2026-01-01T08:00:12.61Z",
            "2025-12-30T23:59:59Z",
            "2026-03-29T01:30:00Z",
            "2026-01-02T00:00:00Z",
        ];
        let house = House::new(7).with_solar();
        let first: Vec<_> = instants
            .iter()
            .map(|t| (house.grid(time(t)), house.pump(time(t))))
            .collect();
        let again = House::new(7).with_solar();
        for (text, want) in instants.iter().zip(first).rev() {
            // Sums over days may be added in another order: equal to a millionth of a watt hour.
            let got = again.grid(time(text));
            assert_eq!(got.phase_w, want.0.phase_w);
            assert!(
                (got.counters.import_wh - want.0.counters.import_wh).abs() < 1e-6,
                "{text}"
            );
            assert_eq!(again.pump(time(text)).supply_c, want.1.supply_c);
        }
        assert_ne!(
            House::new(8).with_solar().grid(time(instants[0])).phase_w,
            house.grid(time(instants[0])).phase_w
        );
    }

    /// Every second over a midnight: counters never run back, and grow by what the power says.
    #[test]
    fn counters_only_grow_and_are_the_integral_of_the_power() {
        for solar in [false, true] {
            let house = if solar {
                House::new(3).with_solar()
            } else {
                House::new(3)
            };
            let start = time("2026-06-10T21:30:00Z");
            let mut before = house.grid(start);
            let (mut imported, mut exported) = (0.0, 0.0);
            let first = before;
            for second in 1..=50_000 {
                let now = house.grid(start + TimeDelta::seconds(second));
                let energy = before.power_w() / 3_600.0;
                imported += energy.max(0.0);
                exported += (-energy).max(0.0);
                assert!(
                    now.counters.import_wh >= before.counters.import_wh,
                    "second {second}"
                );
                assert!(
                    now.counters.export_wh >= before.counters.export_wh,
                    "second {second}"
                );
                assert!(now.counters.compressor_seconds >= before.counters.compressor_seconds);
                before = now;
            }
            let gained = before.counters.import_wh - first.counters.import_wh;
            assert!((gained - imported).abs() < 0.01, "{gained} {imported}");
            let delivered = before.counters.export_wh - first.counters.export_wh;
            assert!((delivered - exported).abs() < 0.01, "{delivered} {exported}");
            assert_eq!(solar, delivered > 1_000.0);
        }
    }

    #[test]
    fn a_year_is_believable() {
        let house = House::new(1);
        let mut days = Vec::new();
        for day in 0..365 {
            let start = time("2025-12-31T23:00:00Z") + TimeDelta::days(day);
            let used = house.grid(start + TimeDelta::days(1)).counters.import_wh
                - house.grid(start).counters.import_wh;
            days.push(used / 1_000.0);
            for hour in [0, 7, 13, 19] {
                let at = start + TimeDelta::hours(hour);
                let (pump, grid, outdoor) = (house.pump(at), house.grid(at), house.outdoor_c(at));
                assert!((-30.0..35.0).contains(&outdoor), "{at} {outdoor}");
                assert!(
                    (20.0..65.0).contains(&pump.supply_c) && (35.0..60.0).contains(&pump.hot_water_c),
                    "{at} {pump:?}"
                );
                assert!(
                    grid.voltage_v.iter().all(|v| (220.0..240.0).contains(v)),
                    "{at} {grid:?}"
                );
                assert!((150.0..20_000.0).contains(&grid.power_w()), "{at} {grid:?}");
                let (temperature, humidity) = house.room(1, at);
                assert!(
                    (17.0..25.0).contains(&temperature) && (15.0..85.0).contains(&humidity),
                    "{at}"
                );
            }
        }
        let (winter, summer) = (days[20], days[200]);
        assert!(
            winter > 1.5 * summer && summer > 6.0 && winter < 90.0,
            "winter {winter} summer {summer}"
        );
        assert!((3_000.0..20_000.0).contains(&days.iter().sum::<f64>()));
    }
}
