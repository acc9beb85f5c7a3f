//! What runs in the house on one day, painted in steps of ten seconds.

use std::f64::consts::PI;

use super::{Counters, DAY_SECONDS, House, LOCAL_OFFSET_SECONDS};

pub const STEP_SECONDS: i64 = 10;
pub const STEPS: usize = 8_640;

pub const COMPRESSOR: u8 = 1;
pub const HOT_WATER: u8 = 2;
pub const AUX_3KW: u8 = 4;

/// Power and state in each step of a day.
pub struct Plan {
    load_w: Vec<[f32; 3]>,
    solar_w: Vec<f32>,
    pub television_w: Vec<f32>,
    pub fridge_w: Vec<f32>,
    pub flags: Vec<u8>,
}

impl House {
    /// What runs on a day.
    pub fn plan(&self, day: i64) -> Plan {
        let start = (day * DAY_SECONDS - LOCAL_OFFSET_SECONDS) as f64;
        let weekend = (day + 3).rem_euclid(7) >= 5;
        let mut plan = Plan {
            load_w: vec![[95.0, 60.0, 70.0]; STEPS],
            solar_w: vec![0.0; STEPS],
            television_w: vec![4.0; STEPS],
            fridge_w: vec![2.0; STEPS],
            flags: vec![0; STEPS],
        };
        // Small things come and go every ten minutes.
        for (slot, steps) in plan.load_w.chunks_mut(60).enumerate() {
            let phase = (self.hash(80, day * 144 + slot as i64) % 3) as usize;
            let extra = 60.0 * self.unit(81, day * 144 + slot as i64);
            steps.iter_mut().for_each(|load| load[phase] += extra as f32);
        }
        // When something starts, give or take, by the day.
        let about =
            |tag: u64, hour: f64, give_hours: f64| hour + (self.unit(tag, day) * 2.0 - 1.0) * give_hours;
        let chance = |tag: u64, share: f64| self.unit(tag, day) < share;

        let morning = about(82, if weekend { 8.5 } else { 6.6 }, 0.4);
        plan.add(0, morning, 1.4, 140.0);
        plan.add(1, morning + 0.3, 0.15, 1_050.0);
        plan.add(1, morning + 0.5, 0.06, 1_900.0);
        let dinner = about(83, 17.8, 0.6);
        plan.cycle(2, dinner, 0.8, 2_200.0, 12, 6);
        plan.cycle(0, dinner + 0.3, 0.5, 1_600.0, 6, 4);
        plan.cycle(1, dinner + 0.4, 0.4, 1_300.0, 6, 3);
        if weekend {
            plan.cycle(2, about(84, 12.5, 0.5), 0.6, 1_800.0, 9, 5);
        }
        plan.add(0, about(85, 16.3, 0.4), 6.4, 150.0);
        plan.add(2, dinner, 4.3, 60.0);
        if chance(86, 0.7) {
            let dishes = about(87, 20.6, 0.7);
            plan.add(0, dishes, 0.35, 2_050.0);
            plan.add(0, dishes + 0.35, 0.7, 70.0);
            plan.add(0, dishes + 1.05, 0.25, 2_050.0);
        }
        if chance(88, if weekend { 0.7 } else { 0.25 }) {
            let washing = about(89, 10.5, 1.5);
            plan.add(1, washing, 0.4, 2_100.0);
            plan.cycle(1, washing + 0.4, 1.2, 350.0, 5, 2);
        }
        let film = about(90, 19.0, 0.6);
        let hours = 2.0 + 2.0 * self.unit(91, day);
        let evening = plan.span(film, hours);
        plan.television_w[evening].fill(118.0);
        self.add_fridge(day, &mut plan);
        self.add_heat_pump(start, day, &mut plan);
        if self.solar {
            self.add_solar(start, day, &mut plan);
        }
        for step in 0..STEPS {
            plan.load_w[step][2] += plan.television_w[step];
            plan.load_w[step][1] += plan.fridge_w[step];
        }
        plan
    }

    /// A quarter of an hour on, half an hour off, on and on.
    fn add_fridge(&self, day: i64, plan: &mut Plan) {
        let offset = (self.hash(92, 0) % 270) as i64;
        for (step, watts) in plan.fridge_w.iter_mut().enumerate() {
            if (day * STEPS as i64 + step as i64 + offset).rem_euclid(270) < 90 {
                *watts = 92.0;
            }
        }
    }

    /// The colder, the longer the compressor runs in each 45 minutes; hot water twice a day comes first.
    fn add_heat_pump(&self, start: f64, day: i64, plan: &mut Plan) {
        for (tag, hour) in [(93, 4.6), (94, 16.4)] {
            let hour = hour + self.unit(tag, day) * 0.5;
            let run = plan.span(hour, 0.6);
            plan.flags[run].fill(COMPRESSOR | HOT_WATER);
        }
        const SLOT: usize = 270;
        for slot in 0..STEPS / SLOT {
            let outdoor = self.outdoor_at(start + ((slot * SLOT + SLOT / 2) as f64) * STEP_SECONDS as f64);
            let need = ((17.0 - outdoor) / 30.0).clamp(0.0, 1.0);
            let steps = (need * SLOT as f64) as usize;
            let help = ((-12.0 - outdoor) / 10.0).clamp(0.0, 1.0);
            let helped = (help * SLOT as f64) as usize;
            for step in 0..steps {
                let flags = &mut plan.flags[slot * SLOT + step];
                if *flags == 0 {
                    *flags = COMPRESSOR | if step < helped { AUX_3KW } else { 0 };
                }
            }
        }
        for (load, flags) in plan.load_w.iter_mut().zip(&plan.flags) {
            let watts = match flags {
                0 => 15.0,
                flags if flags & HOT_WATER != 0 => 880.0,
                flags if flags & AUX_3KW != 0 => 1_720.0,
                _ => 720.0,
            };
            load.iter_mut().for_each(|phase| *phase += watts);
        }
    }

    /// Seven kilowatts on the roof, less the lower the sun and the more clouds.
    fn add_solar(&self, start: f64, day: i64, plan: &mut Plan) {
        let season = (2.0 * PI * ((day as f64 % 365.25) - 81.0) / 365.25).sin();
        let (half_day_hours, peak_w) = (6.0 + 3.2 * season, 7_000.0 * (0.58 + 0.4 * season));
        for (step, watts) in plan.solar_w.iter_mut().enumerate() {
            let hours = (step as f64 * STEP_SECONDS as f64) / 3_600.0 - 12.1;
            if hours.abs() < half_day_hours {
                let at = start + step as f64 * STEP_SECONDS as f64;
                let clouds = 0.62 + 0.38 * self.noise(95, at / 1_500.0);
                *watts = (peak_w * (PI / 2.0 * hours / half_day_hours).cos() * clouds) as f32;
            }
        }
    }
}

impl Plan {
    /// The steps from an hour of the day on, cut at midnight.
    fn span(&self, from_hour: f64, hours: f64) -> std::ops::Range<usize> {
        let step = |hour: f64| ((hour * 360.0).max(0.0) as usize).min(STEPS);
        step(from_hour)..step(from_hour + hours)
    }

    fn add(&mut self, phase: usize, from_hour: f64, hours: f64, watts: f32) {
        let span = self.span(from_hour, hours);
        self.load_w[span].iter_mut().for_each(|load| load[phase] += watts);
    }

    /// A thermostat: `on` steps of every `period`.
    fn cycle(&mut self, phase: usize, from_hour: f64, hours: f64, watts: f32, period: usize, on: usize) {
        let span = self.span(from_hour, hours);
        let cycles = self.load_w[span]
            .iter_mut()
            .enumerate()
            .filter(|(step, _)| step % period < on);
        cycles.for_each(|(_, load)| load[phase] += watts);
    }

    pub fn net_w(&self, step: usize) -> [f64; 3] {
        let solar_w = f64::from(self.solar_w[step]) / 3.0;
        self.load_w[step].map(|load| f64::from(load) - solar_w)
    }

    /// Ripple stays well below the power of the step, so that no counter runs backwards within it.
    pub fn ripple_w(&self, step: usize) -> f64 {
        (0.3 * self.net_w(step).iter().sum::<f64>().abs()).min(25.0)
    }

    /// What a whole step adds.
    pub fn step(&self, step: usize) -> Counters {
        let net_w: f64 = self.net_w(step).iter().sum();
        let seconds = STEP_SECONDS as f64;
        let on = |flag: u8| {
            if self.flags[step] & flag != 0 {
                seconds
            } else {
                0.0
            }
        };
        Counters {
            import_wh: net_w.max(0.0) * seconds / 3_600.0,
            export_wh: (-net_w).max(0.0) * seconds / 3_600.0,
            compressor_seconds: on(COMPRESSOR),
            hot_water_seconds: on(HOT_WATER),
            aux_3kw_seconds: on(AUX_3KW),
            television_wh: f64::from(self.television_w[step]) * seconds / 3_600.0,
            fridge_wh: f64::from(self.fridge_w[step]) * seconds / 3_600.0,
        }
    }

    pub fn total(&self) -> Counters {
        (0..STEPS).fold(Counters::default(), |sum, step| sum.plus(self.step(step), 1.0))
    }
}
