import { describe, expect, it } from 'vitest';
import type { EnergyBucket } from '../../api/types';
import type { LiveRecord } from '../../lib/live/protocol';
import { sumKnown } from '../../lib/sum';
import { addRecords, energyHours, energyToday, gain } from './today';

const ZONE = 'Europe/Stockholm';
const at = (text: string) => Date.parse(text);

function bucket(start: string, kwh: number | null, estimated = false): EnergyBucket {
  return {
    start,
    end: new Date(at(start) + 3_600_000).toISOString(),
    energy_kwh: kwh,
    export_kwh: 0,
    average_power_w: null,
    average_power_l1_w: null,
    average_power_l2_w: null,
    average_power_l3_w: null,
    average_export_power_w: null,
    cost: null,
    currency: null,
    count: 1,
    estimated,
  };
}

function day(from: string, to: string, items: EnergyBucket[], asOf: string) {
  return energyToday({ from, to, devices: ['main'], items }, at(asOf), undefined);
}

function record(time: string, wh: number | null, more: Partial<LiveRecord> & { meter?: string } = {}): LiveRecord {
  const { meter = 'm1', ...rest } = more;
  return {
    stream: 'energy',
    id: time,
    time: at(time),
    deviceId: 'main',
    agent: 'p0',
    clock: 'synced',
    location: null,
    reading: { energy_wh: wh, meter_id: meter },
    ...rest,
  };
}

const winter = () => day('2026-01-14T23:00:00Z', '2026-01-15T23:00:00Z', [bucket('2026-01-15T08:00:00Z', 1.5)], '2026-01-15T08:30:00Z');
const total = (today: ReturnType<typeof winter>, now: string) => sumKnown(energyHours(today, at(now), ZONE).map((hour) => hour.usedKwh));

describe('gain', () => {
  it.each([
    ['the first reading counts nothing', null, 1000, 0, 1000],
    ['a rise', 1000, 1010, 10, 1010],
    ['no change', 1000, 1000, 0, 1000],
    ['a reset: what was counted since', 100_000, 25, 25, 25],
    ['a small step back waits until it is passed', 1000, 990, 0, 1000],
    ['a tenth exactly is no reset', 1000, 100, 0, 1000],
    ['nothing reported', 1000, null, 0, 1000],
  ])('%s', (_, previous, next, gainWh, counter) => {
    expect(gain(previous, next)).toEqual({ gainWh, counter });
  });
});

describe('addRecords', () => {
  it('adds what the counter gained to the hour of the later reading', () => {
    const today = addRecords(winter(), [record('2026-01-15T08:30:01Z', 50_000), record('2026-01-15T08:59:59Z', 50_400), record('2026-01-15T09:00:01Z', 50_500)]);
    const hours = energyHours(today, at('2026-01-15T09:30:00Z'), ZONE);
    expect(hours[9]?.usedKwh).toBeCloseTo(1.9);
    expect(hours[10]?.usedKwh).toBeCloseTo(0.1);
    expect(hours[10]?.running).toBe(true);
    expect(hours[11]?.usedKwh).toBeNull();
  });

  it('does not count again what the answer already holds', () => {
    const today = addRecords(winter(), [record('2026-01-15T08:10:00Z', 49_000), record('2026-01-15T08:20:00Z', 49_900), record('2026-01-15T08:40:00Z', 50_000)]);
    expect(total(today, '2026-01-15T08:41:00Z')).toBeCloseTo(1.6);
  });

  it('does not count late, repeated or reordered readings twice', () => {
    const one = record('2026-01-15T08:31:00Z', 50_000);
    const two = record('2026-01-15T08:32:00Z', 50_100);
    expect(total(addRecords(winter(), [one, two, two, one, two]), '2026-01-15T08:41:00Z')).toBeCloseTo(1.6);
  });

  it('a fresh answer replaces what was added and keeps the counters', () => {
    const patched = addRecords(winter(), [record('2026-01-15T08:31:00Z', 50_000), record('2026-01-15T08:35:00Z', 50_200)]);
    const fresh = energyToday({ ...patched.series, items: [bucket('2026-01-15T08:00:00Z', 1.7)] }, at('2026-01-15T08:36:00Z'), patched);
    expect(total(fresh, '2026-01-15T08:41:00Z')).toBeCloseTo(1.7);
    expect(total(addRecords(fresh, [record('2026-01-15T08:40:00Z', 50_300)]), '2026-01-15T08:41:00Z')).toBeCloseTo(1.8);
  });

  it('starts anew with another meter', () => {
    const today = addRecords(winter(), [record('2026-01-15T08:31:00Z', 50_000), record('2026-01-15T08:32:00Z', 90_000, { meter: 'm2' })]);
    expect(total(today, '2026-01-15T08:41:00Z')).toBeCloseTo(1.5);
  });

  it.each([
    ['a sub-meter', { deviceId: 'other' }],
    ['another stream', { stream: 'temperature' as const }],
    ['a reading of uncertain time', { clock: 'unsynced' }],
  ])('leaves out %s', (_, more) => {
    const today = winter();
    expect(addRecords(today, [record('2026-01-15T08:31:00Z', 50_000, more)])).toBe(today);
  });

  it('leaves out what is not of this day', () => {
    const today = addRecords(winter(), [record('2026-01-15T22:59:00Z', 50_000), record('2026-01-15T23:00:00Z', 50_500)]);
    expect(total(today, '2026-01-15T22:59:30Z')).toBeCloseTo(1.5);
  });

  it('counts what is sold as well', () => {
    const sold = (time: string, wh: number) => record(time, null, { reading: { export_energy_wh: wh, meter_id: 'm1' } });
    const today = addRecords(winter(), [sold('2026-01-15T08:31:00Z', 100), sold('2026-01-15T08:32:00Z', 350)]);
    expect(sumKnown(energyHours(today, at('2026-01-15T08:41:00Z'), ZONE).map((hour) => hour.soldKwh))).toBeCloseTo(0.25);
  });
});

describe('energyHours', () => {
  it('keeps both hours that the clocks repeat apart', () => {
    const items = [bucket('2026-10-25T00:00:00Z', 1), bucket('2026-10-25T01:00:00Z', 2), bucket('2026-10-25T02:00:00Z', 4)];
    const today = day('2026-10-24T22:00:00Z', '2026-10-25T23:00:00Z', items, '2026-10-25T12:00:00Z');
    const hours = energyHours(today, at('2026-10-25T12:00:00Z'), ZONE);
    expect(hours).toHaveLength(25);
    expect(hours.filter((hour) => hour.hour === 2).map((hour) => [hour.usedKwh, hour.repeated])).toEqual([
      [1, false],
      [2, true],
    ]);
    expect(hours.find((hour) => hour.hour === 3)?.usedKwh).toBe(4);
    expect(sumKnown(hours.map((hour) => hour.usedKwh))).toBe(7);
  });

  it('has no bar for the hour that clocks skip', () => {
    const items = [bucket('2026-03-29T00:00:00Z', 1), bucket('2026-03-29T01:00:00Z', 2)];
    const today = day('2026-03-28T23:00:00Z', '2026-03-29T22:00:00Z', items, '2026-03-29T12:00:00Z');
    const hours = energyHours(today, at('2026-03-29T12:00:00Z'), ZONE);
    expect(hours.slice(0, 4).map((hour) => [hour.hour, hour.usedKwh])).toEqual([
      [0, null],
      [1, 1],
      [3, 2],
      [4, null],
    ]);
  });

  it('tells an hour without a count from an hour of zero', () => {
    const today = day('2026-01-14T23:00:00Z', '2026-01-15T23:00:00Z', [bucket('2026-01-15T08:00:00Z', 0), bucket('2026-01-15T09:00:00Z', null, true)], '2026-01-15T12:00:00Z');
    const hours = energyHours(today, at('2026-01-15T12:00:00Z'), ZONE);
    expect([hours[9]?.usedKwh, hours[10]?.usedKwh, hours[10]?.estimated]).toEqual([0, null, true]);
  });
});
