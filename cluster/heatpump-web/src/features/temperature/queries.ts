/** `GET /api/v1/temperature/all-latest` and `/history` of one sensor, both patched by the live stream. */
import { type QueryClient, queryOptions } from '@tanstack/react-query';
import type { TemperatureReading } from '../../api/types';
import { type ApiClient, hasItems } from '../../lib/api/client';
import { numberOf } from '../../lib/json';
import { askAgainAfter, patchData } from '../../lib/live/patch';
import type { LiveRecord } from '../../lib/live/protocol';
import { type DeviceReading, mergeReadings, type TrackedDevice } from '../../lib/live/tracked';
import { DAY, MINUTE } from '../../lib/time/zone';
import { serverNow } from '../../lib/time/server-clock';
import { addPoint, type RoomHistory, roomHistory, withLive } from './history';

type SensorFields = Pick<TemperatureReading, 'temperature_c' | 'humidity_percent' | 'battery_percent' | 'wake_period_seconds'>;
export type Sensor = TrackedDevice<SensorFields>;

const LATEST = ['temperature', 'latest'] as const;
const HISTORY = ['temperature', 'history'] as const;

export function temperatureLatestOptions(api: ApiClient) {
  return queryOptions({
    queryKey: LATEST,
    queryFn: async ({ client, signal }): Promise<readonly Sensor[]> => {
      const { data } = await api.get('/api/v1/temperature/all-latest', {}, hasItems, signal);
      return mergeReadings(client.getQueryData<readonly Sensor[]>(LATEST) ?? [], data.items.map(fromApi));
    },
    refetchInterval: askAgainAfter(5 * MINUTE),
  });
}

export function temperatureHistoryOptions(api: ApiClient, deviceId: string) {
  return queryOptions({
    queryKey: [...HISTORY, deviceId],
    queryFn: async ({ client, queryKey, signal }): Promise<RoomHistory> => {
      const query = { device_id: deviceId, hours: 24 };
      const { data } = await api.get('/api/v1/temperature/history', { query }, hasItems, signal);
      return withLive(roomHistory(data), client.getQueryData<RoomHistory>(queryKey) ?? [], serverNow() - DAY);
    },
    staleTime: 10 * MINUTE,
    refetchInterval: askAgainAfter(15 * MINUTE),
  });
}

export function patchTemperatures(client: QueryClient, records: readonly LiveRecord[], now: number): void {
  const own = records.filter((record) => record.stream === 'temperature');
  if (own.length === 0) return;
  patchData<readonly Sensor[]>(client, LATEST, (sensors) => mergeReadings(sensors, own.map(fromLive)));
  for (const record of own) {
    const celsius = numberOf(record.reading['temperature_c']);
    if (celsius === null) continue;
    const key = [...HISTORY, record.deviceId];
    const extended = (history: RoomHistory) => addPoint(history, { time: record.time, celsius }, now - DAY);
    // Of a sensor nobody has asked about yet it is a beginning, and never fresh: whoever looks at it asks.
    if (client.getQueryData<RoomHistory>(key) === undefined) client.setQueryData<RoomHistory>(key, extended([]), { updatedAt: 0 });
    else patchData(client, key, extended);
  }
}

function fromApi(item: TemperatureReading): DeviceReading<SensorFields> {
  return {
    deviceId: item.device_id,
    agent: item.agent,
    location: item.location,
    clock: item.clock,
    time: Date.parse(item.time),
    values: sensorFields((field) => item[field]),
  };
}

function fromLive(record: LiveRecord): DeviceReading<SensorFields> {
  return { ...record, values: sensorFields((field) => record.reading[field]) };
}

function sensorFields(field: (name: keyof SensorFields) => unknown): DeviceReading<SensorFields>['values'] {
  return {
    temperature_c: numberOf(field('temperature_c')),
    humidity_percent: numberOf(field('humidity_percent')),
    battery_percent: numberOf(field('battery_percent')),
    wake_period_seconds: numberOf(field('wake_period_seconds')),
  };
}
