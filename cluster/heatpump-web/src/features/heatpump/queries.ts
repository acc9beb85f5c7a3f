/** `GET /api/v1/heatpump/latest` and `GET /api/v1/heatpump/settings`, both patched by the live stream. */
import { type QueryClient, queryOptions } from '@tanstack/react-query';
import type { DeviceSettings, HeatpumpDay, HeatpumpReading, HeatpumpSeries, HeatpumpSettings, Paths } from '../../api/types';
import { type ApiClient, hasItems } from '../../lib/api/client';
import type { TimeRange } from '../../lib/chart/range';
import { booleanOf, isObject, numberOf } from '../../lib/json';
import { askAgainAfter, patchData } from '../../lib/live/patch';
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

export function heatpumpLatestOptions(api: ApiClient) {
  return queryOptions({
    queryKey: LATEST,
    queryFn: async ({ client, signal }): Promise<readonly Pump[]> => {
      const { data } = await api.get('/api/v1/heatpump/latest', {}, hasItems, signal);
      return mergeReadings(client.getQueryData<readonly Pump[]>(LATEST) ?? [], data.items.map(fromApi));
    },
    refetchInterval: askAgainAfter(5 * MINUTE),
  });
}

export function heatpumpSettingsOptions(api: ApiClient) {
  return queryOptions({
    queryKey: REPORTED,
    queryFn: async ({ signal }): Promise<readonly DeviceSettings[]> => {
      const { data } = await api.get('/api/v1/heatpump/settings', {}, hasItems, signal);
      return data.items.map(fromSettingsApi);
    },
    refetchInterval: askAgainAfter(5 * MINUTE),
  });
}

/** One pump's settings with the tag a change is based on. Asked when a change is sent, so never from the cache. */
export function settingsTagOptions(api: ApiClient, deviceId: string) {
  return queryOptions({
    queryKey: ['heatpump', 'tag', deviceId],
    queryFn: async ({ signal }): Promise<{ etag: string | null; settings: DeviceSettings }> => {
      const hasReported = (body: unknown) => isObject(body) && isObject(body['reported']);
      const { data, etag } = await api.get('/api/v1/heatpump/settings/{device_id}', { path: { device_id: deviceId } }, hasReported, signal);
      return { etag, settings: fromSettingsApi(data) };
    },
    staleTime: 0,
    gcTime: 0,
  });
}

/** What holds once every open command is done: what is wanted, else what the pump reported. For checks, never shown as either. */
export function currentSettings(device: DeviceSettings): HeatpumpSettings {
  const current = { ...device.reported };
  for (const name of SETTINGS) current[name] = device.wanted[name] ?? current[name];
  return current;
}

/** Buckets of one pump, as fine as the service thinks fit for the range. */
export function heatpumpHistoryOptions(api: ApiClient, deviceId: string, { from, to }: TimeRange) {
  return queryOptions({
    queryKey: ['heatpump', 'history', deviceId, from, to],
    queryFn: async ({ signal }): Promise<HeatpumpSeries> => {
      const { data } = await api.get('/api/v1/heatpump/history', { query: { ...spanOf(from, to), device_id: deviceId } }, hasItems, signal);
      return data;
    },
    staleTime: MINUTE,
    refetchInterval: 2 * MINUTE,
  });
}

export function heatpumpDaysOptions(api: ApiClient, deviceId: string, { from, to }: TimeRange) {
  return queryOptions({
    queryKey: ['heatpump', 'days', deviceId, from, to],
    queryFn: async ({ signal }): Promise<readonly HeatpumpDay[]> => {
      const { data } = await api.get('/api/v1/heatpump/daily-summary', { query: { ...spanOf(from, to), device_id: deviceId } }, hasItems, signal);
      return data.items;
    },
    staleTime: MINUTE,
    refetchInterval: 5 * MINUTE,
  });
}

function spanOf(from: number, to: number): { from: string; to: string } {
  return { from: new Date(from).toISOString(), to: new Date(to).toISOString() };
}

export function patchHeatpumps(client: QueryClient, records: readonly LiveRecord[]): void {
  const own = records.filter((record) => record.stream === 'heatpump');
  if (own.length === 0) return;
  patchData<readonly Pump[]>(client, LATEST, (pumps) => mergeReadings(pumps, own.map(fromLive)));
  patchData<readonly DeviceSettings[]>(client, REPORTED, (devices) => own.reduce(mergeSettings, devices));
}

function fromSettingsApi(item: Paths['/api/v1/heatpump/settings']['get']['responses'][200]['content']['application/json']['items'][number]): DeviceSettings {
  return { ...item, reported: { ...NOT_REPORTED, ...item.reported }, wanted: item.wanted };
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
