//! Two plugs: Tasmota with the television, Shelly with the fridge. Both do with what they are told as [`Behaviour`] says.

pub mod shelly;
pub mod tasmota;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use telemetry::Plug;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::behaviour::{Late, until_online};
use crate::mqtt::Broker;
use crate::{Appliance, Behaviour, House, rounded};

/// Voltage at the sockets: both are on phases with little load.
const VOLTAGE_V: f64 = 230.0;

/// A plug's switch, and what its counter has missed while it was off. Both are forgotten with the process: a
/// restarted plug is on and has the counter of one that was never off.
pub struct Switch {
    appliance: Appliance,
    on: bool,
    missed_wh: f64,
    /// The counter when it was switched off.
    off_at_wh: f64,
    started: DateTime<Utc>,
}

impl Switch {
    /// A plug that is on.
    pub fn new(appliance: Appliance, started: DateTime<Utc>) -> Self {
        Self {
            appliance,
            on: true,
            missed_wh: 0.0,
            off_at_wh: 0.0,
            started,
        }
    }

    /// Switches; false when it was so already.
    fn set(&mut self, on: bool, house: &House, time: DateTime<Utc>) -> bool {
        if on == self.on {
            return false;
        }
        let (_, counter_wh) = house.appliance(self.appliance, time);
        if on {
            self.missed_wh += counter_wh - self.off_at_wh;
        } else {
            self.off_at_wh = counter_wh;
        }
        self.on = on;
        true
    }

    /// What an agent makes of the plug's messages at `time`, all fields together.
    pub fn reading(&self, house: &House, time: DateTime<Utc>) -> Plug {
        let (watts, counter_wh) = house.appliance(self.appliance, time);
        let power_w = if self.on { watts } else { 0.0 };
        let energy_wh = if self.on { counter_wh } else { self.off_at_wh } - self.missed_wh;
        let tasmota = self.appliance == Appliance::Television;
        Plug {
            on: Some(self.on),
            power_w: Some(rounded(power_w, if tasmota { 0 } else { 1 })),
            energy_wh: Some(energy_wh.floor()),
            voltage_v: Some(VOLTAGE_V),
            current_a: Some(rounded(power_w / VOLTAGE_V, 3)),
            rssi_dbm: Some(-55.0),
            uptime_seconds: Some((time - self.started).num_seconds().max(0) as f64),
        }
    }
}

/// What a plug runs with.
pub struct Setup {
    /// The broker it connects to.
    pub broker: Broker,
    /// The house it is in.
    pub house: Arc<House>,
    /// How often it sends.
    pub period: Duration,
    /// What it does with commands.
    pub behaviour: watch::Receiver<Behaviour>,
    /// When it ends.
    pub stop: CancellationToken,
}

/// A plug while it runs.
struct Socket {
    setup: Setup,
    id: String,
    switch: Switch,
    late: Late<bool>,
}

impl Socket {
    fn new(setup: Setup, id: String, appliance: Appliance) -> Self {
        Self {
            setup,
            id,
            switch: Switch::new(appliance, Utc::now()),
            late: Late::default(),
        }
    }

    /// What becomes of a wish now; true when the plug says anything to it.
    fn told(&mut self, on: bool) -> bool {
        let now = *self.setup.behaviour.borrow();
        match now {
            Behaviour::Applies => self.set(on),
            Behaviour::Other => self.set(!on),
            Behaviour::Late(by) => self.late.push(by, on),
            Behaviour::Ignores | Behaviour::Offline => return false,
        }
        true
    }

    /// What was told earlier and is done only now.
    fn catch_up(&mut self) {
        for on in self.late.due() {
            self.set(on);
        }
    }

    fn set(&mut self, on: bool) {
        self.switch.set(on, &self.setup.house, Utc::now());
        tracing::info!(device_id = self.id, on, "switched");
    }

    fn reading(&self) -> Plug {
        self.switch.reading(&self.setup.house, Utc::now())
    }
}

/// The Tasmota plug, until the stop.
pub async fn run_tasmota(setup: Setup) {
    let id = crate::Inventory::of(&setup.house).tasmota;
    let mut socket = Socket::new(setup, id, Appliance::Television);
    while until_online(&mut socket.setup.behaviour, &socket.setup.stop).await {
        tasmota::online(&mut socket).await;
    }
}

/// The Shelly plug, until the stop.
pub async fn run_shelly(setup: Setup) {
    let id = crate::Inventory::of(&setup.house).shelly_plug;
    let mut socket = Socket::new(setup, id, Appliance::Fridge);
    while until_online(&mut socket.setup.behaviour, &socket.setup.stop).await {
        shelly::online(&mut socket).await;
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn a_counter_stands_still_while_the_plug_is_off() {
        let house = House::new(1);
        let start: DateTime<Utc> = "2026-05-01T12:00:00Z".parse().unwrap();
        let at = |hours| start + TimeDelta::hours(hours);
        let mut switch = Switch::new(Appliance::Fridge, start);
        let energy = |switch: &Switch, hours| switch.reading(&house, at(hours)).energy_wh.unwrap();
        let before = energy(&switch, 5);
        assert!(before > energy(&switch, 0));
        assert!(switch.set(false, &house, at(5)) && !switch.set(false, &house, at(6)));
        assert_eq!(energy(&switch, 9), before);
        assert_eq!(switch.reading(&house, at(9)).power_w, Some(0.0));
        switch.set(true, &house, at(10));
        assert!((energy(&switch, 10) - before).abs() <= 1.0);
        assert!(energy(&switch, 15) > before + 50.0);
    }
}
