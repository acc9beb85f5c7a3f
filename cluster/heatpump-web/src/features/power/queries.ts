/** `GET /api/v1/energy/latest`, kept as the newest value of every field of every meter and patched by the live stream. */
import { type QueryClient, queryOptions } from '@tanstack/react-query';
import type { EnergyReading } from '../../api/types';
import { type ApiClient, hasItems } from '../../lib/api/client';
import { numberOf, stringOf } from '../../lib/json';
import { askAgainAfter, patchData } from '../../lib/live/patch';
import type { LiveRecord } from '../../lib/live/protocol';
import { type DeviceReading, mergeReadings, type TrackedDevice } from '../../lib/live/tracked';
import { MINUTE } from '../../lib/time/zone';

export type MeterFields = Pick<
  EnergyReading,
  | 'power_w'
  | 'power_l1_w'
  | 'power_l2_w'
  | 'power_l3_w'
  | 'export_power_w'
  | 'voltage_l1_v'
  | 'voltage_l2_v'
  | 'voltage_l3_v'
  | 'current_l1_a'
  | 'current_l2_a'
  | 'current_l3_a'
  | 'meter_type'
>;
export type Meter = TrackedDevice<MeterFields>;

const KEY = ['energy', 'latest'] as const;

export function energyLatestOptions(api: ApiClient) {
  return queryOptions({
    queryKey: KEY,
    queryFn: async ({ client, signal }): Promise<readonly Meter[]> => {
      const { data } = await api.get('/api/v1/energy/latest', {}, hasItems, signal);
      // Live readings may be newer than the answer, and know fields the newest row lacks.
      return mergeReadings(client.getQueryData<readonly Meter[]>(KEY) ?? [], data.items.map(fromApi));
    },
    // Live readings keep it up to date; this catches what a lost connection could not deliver.
    refetchInterval: askAgainAfter(5 * MINUTE),
  });
}

export function patchMeters(client: QueryClient, records: readonly LiveRecord[]): void {
  const readings = records.filter((record) => record.stream === 'energy').map(fromLive);
  if (readings.length === 0) return;
  // Before the first answer there is nothing to patch: the answer will hold these readings or be patched by the next.
  patchData<readonly Meter[]>(client, KEY, (meters) => mergeReadings(meters, readings));
}

function fromApi(item: EnergyReading): DeviceReading<MeterFields> {
  return {
    deviceId: item.device_id,
    agent: item.agent,
    location: item.location,
    clock: item.clock,
    time: Date.parse(item.time),
    values: meterFields((field) => item[field]),
  };
}

function fromLive(record: LiveRecord): DeviceReading<MeterFields> {
  return { ...record, values: meterFields((field) => record.reading[field]) };
}

function meterFields(field: (name: keyof MeterFields) => unknown): DeviceReading<MeterFields>['values'] {
  return {
    power_w: numberOf(field('power_w')),
    power_l1_w: numberOf(field('power_l1_w')),
    power_l2_w: numberOf(field('power_l2_w')),
    power_l3_w: numberOf(field('power_l3_w')),
    export_power_w: numberOf(field('export_power_w')),
    voltage_l1_v: numberOf(field('voltage_l1_v')),
    voltage_l2_v: numberOf(field('voltage_l2_v')),
    voltage_l3_v: numberOf(field('voltage_l3_v')),
    current_l1_a: numberOf(field('current_l1_a')),
    current_l2_a: numberOf(field('current_l2_a')),
    current_l3_a: numberOf(field('current_l3_a')),
    meter_type: stringOf(field('meter_type')),
  };
}
