/**
 * What homelab-api and homelab-settings-api answer. The read API's shapes are generated from its OpenAPI document
 * (`npm run generate-types`; `npm run check` fails when they differ from it), the settings API's follow docs/API.md. Only shapes
 * live here, never behaviour.
 *
 * Times are RFC 3339 in UTC. A value that was not reported is null.
 */

import type { components } from './homelab-api';

type Schemas = components['schemas'];

export interface Items<T> {
  items: T[];
}

export type EnergyReading = Schemas['EnergyReading'];
export type EnergyBucket = Schemas['EnergyBucket'];
export type EnergySeries = Schemas['EnergySeries'];
export type HeatpumpSettings = Schemas['HeatpumpSettings'];
export type HeatpumpReading = Schemas['HeatpumpReading'];
export type TemperatureReading = Schemas['TemperatureReading'];
export type TemperaturePoint = Schemas['TemperaturePoint'];
export type TemperatureSeries = Schemas['TemperatureSeries'];

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
