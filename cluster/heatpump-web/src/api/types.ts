/**
 * What homelab-api and homelab-settings-api answer, by the names the page uses. All of it is generated from their OpenAPI documents
 * (`npm run generate-types`; `npm run check` fails when the generated files differ from them). Only shapes live here, never behaviour.
 *
 * Times are RFC 3339 in UTC. A value that was not reported is null.
 */

import type { components as homelab, paths as homelabPaths } from './homelab-api';
import type { components as settings, paths as settingsPaths } from './homelab-settings-api';

type Homelab = homelab['schemas'];
type Settings = settings['schemas'];

/** Every endpoint of both services; the gateway joins them under one origin. */
export type Paths = homelabPaths & settingsPaths;

export type EnergyReading = Homelab['EnergyReading'];
export type EnergyBucket = Homelab['EnergyBucket'];
export type EnergySeries = Homelab['EnergySeries'];
export type HeatpumpSettings = Homelab['HeatpumpSettings'];
export type HeatpumpReading = Homelab['HeatpumpReading'];
export type HouseEvent = Homelab['Event'];
export type TemperatureReading = Homelab['TemperatureReading'];
export type TemperatureSeries = Homelab['TemperatureSeries'];

/** The settings API's document says of both fields only that they are objects; their names are those of the read API's settings. */
export type DeviceSettings = Omit<Settings['DeviceSettings'], 'agent' | 'reported' | 'reported_at' | 'wanted'> & {
  readonly agent: string | null;
  readonly reported: HeatpumpSettings;
  readonly reported_at: string | null;
  /** Fields of open commands only; never mixed with what the device reported. */
  readonly wanted: Partial<HeatpumpSettings>;
};

type Answered<P extends keyof Paths> = Paths[P] extends { get: { responses: { 200: { content: { 'application/json': infer Body } } } } } ? Body : never;

export type HeatpumpSeries = Answered<'/api/v1/heatpump/history'>;
export type HeatpumpPoint = HeatpumpSeries['items'][number];
type HeatpumpDays = Answered<'/api/v1/heatpump/daily-summary'>;
export type HeatpumpDay = HeatpumpDays['items'][number];
export type Device = Answered<'/api/v1/devices'>['items'][number];
type PlugSeries = Answered<'/api/v1/plugs/{device_id}/history'>;
export type PlugHour = PlugSeries['items'][number];
/** A plug as the settings API knows it. */
export type PlugState = Settings['Plug'];
export type Schedule = Settings['Schedule'];
export type NewSchedule = Settings['NewSchedule'];
/** One wish of somebody, and what became of it. */
export type Command = Settings['Entry'];
export type CommandChange = Settings['Change'];

/** One field of a request that the server refused. */
export type FieldError = Settings['FieldError'];
