/** `GET /api/v1/heatpump/latest` and `GET /api/v1/heatpump/settings`, both patched by the live stream. */
import { type QueryClient, queryOptions } from '@tanstack/react-query';
import type { DeviceSettings, HeatpumpReading, HeatpumpSettings, Items } from '../../api/types';
import { type ApiClient, hasItems } from '../../lib/api/client';
import { booleanOf, isObject, numberOf } from '../../lib/json';
import type { LiveRecord } from '../../lib/live/protocol';
import { type DeviceReading, mergeReadings, type TrackedDevice } from '../../lib/live/tracked';
import { MINUTE } from '../../lib/time/zone';

const NUMBERS = ['outdoor_c', 'indoor_c', 'supply_c', 'return_c', 'hot_water_c', 'brine_in_c', 'brine_out_c', 'integral', 'flow_pump_percent'] as const;
const STATES = ['compressor_on', 'brine_pump_on', 'flow_pump_on', 'hot_water_on', 'aux_3kw_on', 'aux_6kw_on'] as const;
const SETTINGS = [
  'indoor_target_c',
  'mode',
  'curve',
  'curve_min',
  'curve_max',
  'curve_plus_5',
  'curve_zero',
  'curve_minus_5',
  'heat_stop_c',
  'integral',
] as const satisfies readonly (keyof HeatpumpSettings)[];

export type PumpFields = Pick<HeatpumpReading, (typeof NUMBERS)[number] | (typeof STATES)[number]>;
export type Pump = TrackedDevice<PumpFields>;

const LATEST = ['heatpump', 'latest'] as const;
const REPORTED = ['heatpump', 'settings'] as const;

const isLatest = (body: unknown): body is Items<HeatpumpReading> => hasItems(body);
const isSettings = (body: unknown): body is Items<DeviceSettings> => hasItems(body);

export function heatpumpLatestOptions(api: ApiClient) {
  return queryOptions({
    queryKey: LATEST,
    queryFn: async ({ client, signal }): Promise<readonly Pump[]> => {
      const { data } = await api.get('/api/v1/heatpump/latest', {}, isLatest, signal);
      return mergeReadings(client.getQueryData<readonly Pump[]>(LATEST) ?? [], data.items.map(fromApi));
    },
    refetchInterval: 5 * MINUTE,
  });
}

export function heatpumpSettingsOptions(api: ApiClient) {
  return queryOptions({
    queryKey: REPORTED,
    queryFn: async ({ signal }): Promise<readonly DeviceSettings[]> => {
      const { data } = await api.get('/api/v1/heatpump/settings', {}, isSettings, signal);
      return data.items;
    },
    refetchInterval: 5 * MINUTE,
  });
}

export function patchHeatpumps(client: QueryClient, records: readonly LiveRecord[]): void {
  const own = records.filter((record) => record.stream === 'heatpump');
  if (own.length === 0) return;
  client.setQueryData<readonly Pump[]>(LATEST, (pumps) => pumps && mergeReadings(pumps, own.map(fromLive)));
  client.setQueryData<readonly DeviceSettings[]>(REPORTED, (devices) => devices && own.reduce(mergeSettings, devices));
}

/** What the pump reports is taken over field by field; what is wanted is for the settings API alone to say. */
export function mergeSettings(devices: readonly DeviceSettings[], record: LiveRecord): readonly DeviceSettings[] {
  const settings = record.reading['settings'];
  if (!isObject(settings)) return devices;
  const known = devices.find((device) => device.device_id === record.deviceId);
  const reportedAt = known?.reported_at ?? null;
  if (reportedAt !== null && Date.parse(reportedAt) >= record.time) return devices;
  const reported = { ...(known?.reported ?? NOT_REPORTED) };
  for (const name of SETTINGS) reported[name] = numberOf(settings[name]) ?? reported[name];
  const merged: DeviceSettings = {
    device_id: record.deviceId,
    agent: record.agent,
    reported,
    reported_at: new Date(record.time).toISOString(),
    wanted: known?.wanted ?? {},
  };
  return known === undefined ? [...devices, merged] : devices.map((device) => (device === known ? merged : device));
}

export const NOT_REPORTED: HeatpumpSettings = {
  indoor_target_c: null,
  mode: null,
  curve: null,
  curve_min: null,
  curve_max: null,
  curve_plus_5: null,
  curve_zero: null,
  curve_minus_5: null,
  heat_stop_c: null,
  integral: null,
};

function fromApi(item: HeatpumpReading): DeviceReading<PumpFields> {
  return {
    deviceId: item.device_id,
    agent: item.agent,
    location: item.location,
    clock: item.clock,
    time: Date.parse(item.time),
    values: pumpFields((field) => item[field]),
  };
}

function fromLive(record: LiveRecord): DeviceReading<PumpFields> {
  return { ...record, values: pumpFields((field) => record.reading[field]) };
}

function pumpFields(field: (name: keyof PumpFields) => unknown): DeviceReading<PumpFields>['values'] {
  const values: { [K in keyof PumpFields]?: PumpFields[K] } = {};
  for (const name of NUMBERS) values[name] = numberOf(field(name));
  for (const name of STATES) values[name] = booleanOf(field(name));
  return values;
}
