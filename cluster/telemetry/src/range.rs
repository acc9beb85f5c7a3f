//! Physical limits of readings. They are wide: what a device really measured always passes (40 kW does), what
//! is outside is a fault of a device or a decoder and belongs in the dead letters.

use crate::{Energy, Heatpump, Plug, Reading, Temperature};

/// The first field outside its limits.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{field} is {value}, outside {low} to {high}")]
pub struct OutOfRange {
    /// Name of the field.
    pub field: &'static str,
    /// The value found.
    pub value: f64,
    /// Lowest value that passes.
    pub low: f64,
    /// Highest value that passes.
    pub high: f64,
}

/// A house connection ends far below a megawatt.
const POWER_W: (f64, f64) = (-1e6, 1e6);
/// A counter of 2^53 Wh would take a megawatt house a million years.
const ENERGY_WH: (f64, f64) = (0.0, 9_007_199_254_740_992.0);
const VOLTAGE_V: (f64, f64) = (0.0, 1_000.0);
const CURRENT_A: (f64, f64) = (-5_000.0, 5_000.0);
const TEMPERATURE_C: (f64, f64) = (-100.0, 200.0);
const PERCENT: (f64, f64) = (0.0, 100.0);
const RSSI_DBM: (f64, f64) = (-200.0, 50.0);
const SECONDS: (f64, f64) = (0.0, 1e10);
const HOURS: (f64, f64) = (0.0, 1e7);
/// Settings are one byte in the pump; the integral is two.
const SETTING: (f64, f64) = (-32_768.0, 65_535.0);

type Check = (&'static str, Option<f64>, (f64, f64));

impl Reading {
    /// The first field outside its physical limits, if any. Values that are not finite are outside.
    pub fn out_of_range(&self) -> Option<OutOfRange> {
        let first = |checks: &[Check]| {
            checks.iter().find_map(|&(field, value, (low, high))| {
                let value = value?;
                (!(low..=high).contains(&value)).then_some(OutOfRange {
                    field,
                    value,
                    low,
                    high,
                })
            })
        };
        match self {
            Reading::Temperature(r) => first(&temperature(r)),
            Reading::Energy(r) => first(&energy(r)),
            Reading::Heatpump(r) => first(&heatpump(r)),
            Reading::Plug(r) => first(&plug(r)),
        }
    }
}

fn temperature(r: &Temperature) -> [Check; 9] {
    [
        ("temperature_c", r.temperature_c, TEMPERATURE_C),
        ("humidity_percent", r.humidity_percent, PERCENT),
        ("battery_volts", r.battery_volts, VOLTAGE_V),
        ("battery_percent", r.battery_percent, PERCENT),
        ("rssi_dbm", r.rssi_dbm, RSSI_DBM),
        ("uptime_seconds", r.uptime_seconds, SECONDS),
        ("wake_period_seconds", r.wake_period_seconds, SECONDS),
        ("wind_speed_ms", r.wind_speed_ms, (0.0, 200.0)),
        ("pressure_hpa", r.pressure_hpa, (100.0, 2_000.0)),
    ]
}

fn energy(r: &Energy) -> [Check; 15] {
    [
        ("power_w", r.power_w, POWER_W),
        ("power_l1_w", r.power_l1_w, POWER_W),
        ("power_l2_w", r.power_l2_w, POWER_W),
        ("power_l3_w", r.power_l3_w, POWER_W),
        ("export_power_w", r.export_power_w, POWER_W),
        ("energy_wh", r.energy_wh, ENERGY_WH),
        ("export_energy_wh", r.export_energy_wh, ENERGY_WH),
        ("voltage_l1_v", r.voltage_l1_v, VOLTAGE_V),
        ("voltage_l2_v", r.voltage_l2_v, VOLTAGE_V),
        ("voltage_l3_v", r.voltage_l3_v, VOLTAGE_V),
        ("current_l1_a", r.current_l1_a, CURRENT_A),
        ("current_l2_a", r.current_l2_a, CURRENT_A),
        ("current_l3_a", r.current_l3_a, CURRENT_A),
        ("power_factor", r.power_factor, (-1.001, 1.001)),
        ("rssi_dbm", r.rssi_dbm, RSSI_DBM),
    ]
}

fn heatpump(r: &Heatpump) -> [Check; 13] {
    [
        ("outdoor_c", r.outdoor_c, TEMPERATURE_C),
        ("indoor_c", r.indoor_c, TEMPERATURE_C),
        ("supply_c", r.supply_c, TEMPERATURE_C),
        ("return_c", r.return_c, TEMPERATURE_C),
        ("hot_water_c", r.hot_water_c, TEMPERATURE_C),
        ("brine_in_c", r.brine_in_c, TEMPERATURE_C),
        ("brine_out_c", r.brine_out_c, TEMPERATURE_C),
        ("integral", r.integral, SETTING),
        ("flow_pump_percent", r.flow_pump_percent, PERCENT),
        ("compressor_hours", r.compressor_hours, HOURS),
        ("hot_water_hours", r.hot_water_hours, HOURS),
        ("aux_3kw_hours", r.aux_3kw_hours, HOURS),
        ("aux_6kw_hours", r.aux_6kw_hours, HOURS),
    ]
}

fn plug(r: &Plug) -> [Check; 6] {
    [
        ("power_w", r.power_w, POWER_W),
        ("energy_wh", r.energy_wh, ENERGY_WH),
        ("voltage_v", r.voltage_v, VOLTAGE_V),
        ("current_a", r.current_a, CURRENT_A),
        ("rssi_dbm", r.rssi_dbm, RSSI_DBM),
        ("uptime_seconds", r.uptime_seconds, SECONDS),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_values_pass_and_impossible_ones_are_named() {
        let energy = |power_w, energy_wh| {
            Reading::Energy(Energy {
                power_w,
                energy_wh,
                ..Energy::default()
            })
            .out_of_range()
            .map(|o| o.field)
        };
        assert_eq!(energy(Some(40_000.0), Some(41_230_187.0)), None);
        assert_eq!(energy(None, None), None);
        assert_eq!(energy(Some(-1_000_000.5), None), Some("power_w"));
        assert_eq!(energy(None, Some(-1.0)), Some("energy_wh"));
        assert_eq!(energy(Some(f64::NAN), None), Some("power_w"));
        let temperature = |temperature_c| {
            Reading::Temperature(Temperature {
                temperature_c: Some(temperature_c),
                ..Temperature::default()
            })
        };
        assert_eq!(temperature(-40.0).out_of_range(), None);
        assert_eq!(
            temperature(451.0).out_of_range().map(|o| o.field),
            Some("temperature_c")
        );
    }
}
