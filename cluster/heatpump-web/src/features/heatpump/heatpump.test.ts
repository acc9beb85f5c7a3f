import { describe, expect, it } from 'vitest';
import type { LiveRecord } from '../../lib/live/protocol';
import { mergeReading } from '../../lib/live/tracked';
import { activityOf } from './activity';
import { mergeSettings, type PumpFields } from './queries';

function pump(values: Partial<PumpFields>) {
  return mergeReading<PumpFields>(undefined, { deviceId: 'ivt', agent: 'p0', location: null, clock: 'synced', time: 1, values });
}

describe('activityOf', () => {
  it.each([
    ['unknown', {}],
    ['heating', { compressor_on: true, hot_water_on: false }],
    ['hotWater', { compressor_on: true, hot_water_on: true }],
    ['hotWater', { compressor_on: false, hot_water_on: true, aux_6kw_on: true }],
    ['auxiliary', { compressor_on: false, aux_3kw_on: true }],
    ['circulating', { compressor_on: false, flow_pump_on: true }],
    ['resting', { compressor_on: false, flow_pump_on: false }],
  ] as const)('%s: %j', (activity, values) => {
    expect(activityOf(pump(values))).toBe(activity);
  });
});

describe('mergeSettings', () => {
  const record = (time: number, settings: unknown): LiveRecord => ({
    stream: 'heatpump',
    id: String(time),
    time,
    deviceId: 'ivt',
    agent: 'p1',
    clock: 'synced',
    location: null,
    reading: { settings },
  });

  it('takes over what is reported, field by field, and leaves what is wanted alone', () => {
    const first = mergeSettings([], record(1000, { indoor_target_c: 21, mode: 1 }));
    const wanting = first.map((device) => ({ ...device, wanted: { indoor_target_c: 22 } }));
    const [device] = mergeSettings(wanting, record(2000, { indoor_target_c: 20, mode: null }));
    expect(device).toMatchObject({ reported: { indoor_target_c: 20, mode: 1 }, wanted: { indoor_target_c: 22 }, reported_at: '1970-01-01T00:00:02.000Z' });
  });

  it('ignores frames without settings and frames that are older', () => {
    const known = mergeSettings([], record(2000, { mode: 1 }));
    expect(mergeSettings(known, record(3000, null))).toBe(known);
    expect(mergeSettings(known, record(1000, { mode: 2 }))).toBe(known);
  });
});
