/**
 * What homelab-api and homelab-settings-api answer, as docs/API.md names it. Written by hand until the services' OpenAPI documents
 * exist; then this file is generated and nothing else changes. Only shapes live here, never behaviour.
 *
 * Times are RFC 3339 in UTC. A value that was not reported is null.
 */

export type Clock = 'synced' | 'corrected' | 'unsynced';

export interface Items<T> {
  items: T[];
}

interface Origin {
  device_id: string;
  time: string;
  clock: Clock;
  agent: string;
  location: string | null;
}

export interface EnergyReading extends Origin {
  power_w: number | null;
  power_l1_w: number | null;
  power_l2_w: number | null;
  power_l3_w: number | null;
  export_power_w: number | null;
  energy_wh: number | null;
  export_energy_wh: number | null;
  voltage_l1_v: number | null;
  voltage_l2_v: number | null;
  voltage_l3_v: number | null;
  current_l1_a: number | null;
  current_l2_a: number | null;
  current_l3_a: number | null;
  power_factor: number | null;
  meter_id: string | null;
  meter_type: string | null;
  rssi_dbm: number | null;
}

export interface EnergyBucket {
  start: string;
  end: string;
  energy_kwh: number | null;
  export_kwh: number | null;
  average_power_w: number | null;
  average_power_l1_w: number | null;
  average_power_l2_w: number | null;
  average_power_l3_w: number | null;
  average_export_power_w: number | null;
  cost: number | null;
  currency: string | null;
  count: number;
  estimated: boolean;
}

export interface EnergySeries {
  from: string;
  to: string;
  /** The main meters the sums are made of, or the one device that was asked for. */
  devices: string[];
  items: EnergyBucket[];
}

export interface HeatpumpSettings {
  indoor_target_c: number | null;
  mode: number | null;
  curve: number | null;
  curve_min: number | null;
  curve_max: number | null;
  curve_plus_5: number | null;
  curve_zero: number | null;
  curve_minus_5: number | null;
  heat_stop_c: number | null;
  integral: number | null;
}

export interface HeatpumpReading extends Origin {
  outdoor_c: number | null;
  indoor_c: number | null;
  supply_c: number | null;
  return_c: number | null;
  hot_water_c: number | null;
  brine_in_c: number | null;
  brine_out_c: number | null;
  integral: number | null;
  flow_pump_percent: number | null;
  compressor_on: boolean | null;
  brine_pump_on: boolean | null;
  flow_pump_on: boolean | null;
  hot_water_on: boolean | null;
  aux_3kw_on: boolean | null;
  aux_6kw_on: boolean | null;
  compressor_hours: number | null;
  hot_water_hours: number | null;
  aux_3kw_hours: number | null;
  aux_6kw_hours: number | null;
  settings: HeatpumpSettings | null;
}

export interface TemperatureReading extends Origin {
  temperature_c: number | null;
  humidity_percent: number | null;
  battery_volts: number | null;
  battery_percent: number | null;
  external_power: boolean | null;
  rssi_dbm: number | null;
  uptime_seconds: number | null;
  wake_period_seconds: number | null;
  wind_speed_ms: number | null;
  pressure_hpa: number | null;
}

export interface TemperaturePoint {
  device_id: string;
  location: string | null;
  time: string;
  temperature_c: number | null;
  humidity_percent: number | null;
}

export interface TemperatureSeries {
  from: string;
  to: string;
  /** Null: the readings themselves; a number: averages of so many seconds. */
  resolution_seconds: number | null;
  items: TemperaturePoint[];
}

export interface DeviceSettings {
  device_id: string;
  agent: string | null;
  reported: HeatpumpSettings;
  reported_at: string | null;
  /** Fields of open commands only; never mixed with what the device reported. */
  wanted: Partial<HeatpumpSettings>;
}

/** RFC 9457. */
export interface Problem {
  type?: string;
  title?: string;
  status?: number;
  detail?: string;
  errors?: { field: string; detail: string }[];
}
