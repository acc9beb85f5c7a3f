//! What a device measured, by kind. Every field is optional: absent and null both mean "not reported".
//!
//! Units are in the names. Numbers are `f64`: counters keep their decimals and stay exact up to 2^53.

use serde::{Deserialize, Serialize};

/// The four kinds of reading; each has its topic and its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A temperature, humidity or weather sensor.
    Temperature,
    /// An electricity meter.
    Energy,
    /// A heat pump.
    Heatpump,
    /// A switchable plug or relay.
    Plug,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 4] = [Kind::Temperature, Kind::Energy, Kind::Heatpump, Kind::Plug];

    /// The kind as it stands in a record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Temperature => "temperature",
            Kind::Energy => "energy",
            Kind::Heatpump => "heatpump",
            Kind::Plug => "plug",
        }
    }
}

/// One reading of one kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// See [`Temperature`].
    Temperature(Temperature),
    /// See [`Energy`].
    Energy(Energy),
    /// See [`Heatpump`].
    Heatpump(Box<Heatpump>),
    /// See [`Plug`].
    Plug(Plug),
}

impl Reading {
    /// The kind of this reading.
    pub const fn kind(&self) -> Kind {
        match self {
            Reading::Temperature(_) => Kind::Temperature,
            Reading::Energy(_) => Kind::Energy,
            Reading::Heatpump(_) => Kind::Heatpump,
            Reading::Plug(_) => Kind::Plug,
        }
    }
}

macro_rules! reading {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[$field_meta])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$ty>,)*
        }

        impl $name {
            /// True when the device reported none of the fields.
            pub fn is_empty(&self) -> bool {
                $(self.$field.is_none())&&*
            }
        }
    };
}

reading! {
    /// A temperature, humidity or weather sensor.
    Temperature {
        /// Air temperature, degrees Celsius.
        temperature_c: f64,
        /// Relative humidity, percent.
        humidity_percent: f64,
        /// Battery voltage, volts.
        battery_volts: f64,
        /// Battery charge, percent.
        battery_percent: f64,
        /// True when the sensor is fed from outside (USB).
        external_power: bool,
        /// Wi-Fi signal, dBm.
        rssi_dbm: f64,
        /// Seconds since the device started.
        uptime_seconds: f64,
        /// Seconds between two wake-ups of a sleeping sensor.
        wake_period_seconds: f64,
        /// Wind speed, metres per second.
        wind_speed_ms: f64,
        /// Air pressure, hectopascal.
        pressure_hpa: f64,
    }
}

reading! {
    /// An electricity meter. Power has a sign: negative on a phase is export.
    Energy {
        /// Total active power drawn, watts.
        power_w: f64,
        /// Active power of phase 1, watts.
        power_l1_w: f64,
        /// Active power of phase 2, watts.
        power_l2_w: f64,
        /// Active power of phase 3, watts.
        power_l3_w: f64,
        /// Active power delivered to the grid, watts.
        export_power_w: f64,
        /// Energy counter, drawn, watt hours.
        energy_wh: f64,
        /// Energy counter, delivered, watt hours.
        export_energy_wh: f64,
        /// Voltage of phase 1, volts.
        voltage_l1_v: f64,
        /// Voltage of phase 2, volts.
        voltage_l2_v: f64,
        /// Voltage of phase 3, volts.
        voltage_l3_v: f64,
        /// Current of phase 1, amperes.
        current_l1_a: f64,
        /// Current of phase 2, amperes.
        current_l2_a: f64,
        /// Current of phase 3, amperes.
        current_l3_a: f64,
        /// Power factor, -1 to 1.
        power_factor: f64,
        /// Serial number of the meter behind the reader; a new one starts a new counter.
        meter_id: String,
        /// Model of the meter.
        meter_type: String,
        /// Wi-Fi signal, dBm.
        rssi_dbm: f64,
    }
}

reading! {
    /// A heat pump. Registers of the ThermIQ interface are named in docs/DEVICES.md.
    Heatpump {
        /// Outdoor temperature, degrees Celsius.
        outdoor_c: f64,
        /// Measured indoor temperature, degrees Celsius.
        indoor_c: f64,
        /// Supply line, degrees Celsius.
        supply_c: f64,
        /// Return line, degrees Celsius.
        return_c: f64,
        /// Hot water, degrees Celsius.
        hot_water_c: f64,
        /// Brine into the pump, degrees Celsius.
        brine_in_c: f64,
        /// Brine out of the pump, degrees Celsius.
        brine_out_c: f64,
        /// Heat deficit, degree-minutes, signed.
        integral: f64,
        /// Speed of the flow-line pump, percent.
        flow_pump_percent: f64,
        /// Compressor runs.
        compressor_on: bool,
        /// Brine pump runs.
        brine_pump_on: bool,
        /// Flow-line pump runs.
        flow_pump_on: bool,
        /// Hot water is being made.
        hot_water_on: bool,
        /// The 3 kW heater is on.
        aux_3kw_on: bool,
        /// The 6 kW heater is on.
        aux_6kw_on: bool,
        /// Running hours of the compressor.
        compressor_hours: f64,
        /// Running hours of hot-water production.
        hot_water_hours: f64,
        /// Running hours of the 3 kW heater.
        aux_3kw_hours: f64,
        /// Running hours of the 6 kW heater.
        aux_6kw_hours: f64,
        /// The settings the pump reports.
        settings: HeatpumpSettings,
    }
}

reading! {
    /// Settings as the pump reports them: whole numbers in the pump's own steps.
    #[derive(Eq)]
    HeatpumpSettings {
        /// Wanted indoor temperature, degrees Celsius.
        indoor_target_c: i64,
        /// 0 off, 1 auto, 2 compressor only, 3 auxiliary only, 4 hot water only.
        mode: i64,
        /// Heat curve.
        curve: i64,
        /// Lowest supply temperature, degrees Celsius.
        curve_min: i64,
        /// Highest supply temperature, degrees Celsius.
        curve_max: i64,
        /// Correction of the curve at +5 degrees outside.
        curve_plus_5: i64,
        /// Correction of the curve at 0 degrees outside.
        curve_zero: i64,
        /// Correction of the curve at -5 degrees outside.
        curve_minus_5: i64,
        /// Outdoor temperature above which heating stops, degrees Celsius.
        heat_stop_c: i64,
        /// Integral at which the compressor starts.
        integral: i64,
    }
}

reading! {
    /// A switchable plug or relay.
    Plug {
        /// True when it is switched on.
        on: bool,
        /// Active power, watts.
        power_w: f64,
        /// Energy counter, watt hours.
        energy_wh: f64,
        /// Voltage, volts.
        voltage_v: f64,
        /// Current, amperes.
        current_a: f64,
        /// Wi-Fi signal, dBm.
        rssi_dbm: f64,
        /// Seconds since the device started.
        uptime_seconds: f64,
    }
}
