/** `GET /api/v1/temperature/all-latest` and `/history` of one sensor, both patched by the live stream. */
import { type QueryClient, queryOptions } from '@tanstack/react-query';
import type { Items, TemperatureReading, TemperatureSeries } from '../../api/types';
import { type ApiClient, hasItems } from '../../lib/api/client';
import { numberOf } from '../../lib/json';
import type { LiveRecord } from '../../lib/live/protocol';
import { type DeviceReading, mergeReadings, type TrackedDevice } from '../../lib/live/tracked';
import { DAY, MINUTE } from '../../lib/time/zone';
import { addPoint, type RoomHistory, roomHistory } from './history';

export type SensorFields = Pick<TemperatureReading, 'temperature_c' | 'humidity_percent' | 'battery_percent' | 'wake_period_seconds'>;
export type Sensor = TrackedDevice<SensorFields>;

const LATEST = ['temperature', 'latest'] as const;
const HISTORY = ['temperature', 'history'] as const;

const isLatest = (body: unknown): body is Items<TemperatureReading> => hasItems(body);
const isSeries = (body: unknown): body is TemperatureSeries => hasItems(body);

export function temperatureLatestOptions(api: ApiClient) {
  return queryOptions({
    queryKey: LATEST,
    queryFn: async ({ client, signal }): Promise<readonly Sensor[]> => {
      const { data } = await api.get('/api/v1/temperature/all-latest', {}, isLatest, signal);
      return mergeReadings(client.getQueryData<readonly Sensor[]>(LATEST) ?? [], data.items.map(fromApi));
    },
    refetchInterval: 5 * MINUTE,
  });
}

export function temperatureHistoryOptions(api: ApiClient, deviceId: string) {
  return queryOptions({
    queryKey: [...HISTORY, deviceId],
    queryFn: async ({ signal }): Promise<RoomHistory> => {
      const parameters = { device_id: deviceId, hours: 24 };
      const { data } = await api.get('/api/v1/temperature/history', parameters, isSeries, signal);
      return roomHistory(data);
    },
    staleTime: 10 * MINUTE,
    refetchInterval: 15 * MINUTE,
  });
}

export function patchTemperatures(client: QueryClient, records: readonly LiveRecord[], now: number): void {
  const own = records.filter((record) => record.stream === 'temperature');
  if (own.length === 0) return;
  client.setQueryData<readonly Sensor[]>(LATEST, (sensors) => sensors && mergeReadings(sensors, own.map(fromLive)));
  for (const record of own) {
    const celsius = numberOf(record.reading['temperature_c']);
    if (celsius === null) continue;
    client.setQueryData<RoomHistory>(
      [...HISTORY, record.deviceId],
      (history) => history && addPoint(history, { time: record.time, celsius }, now - DAY),
    );
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
