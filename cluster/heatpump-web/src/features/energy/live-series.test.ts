import { describe, expect, it } from 'vitest';
import type { EnergySeries } from '../../api/types';
import { gainsBetween, withGains } from './live-series';
import { energyToday } from './today';

const at = (time: string) => Date.parse(`2026-01-10T${time}Z`);

function series(starts: readonly string[]): EnergySeries {
  const item = (start: string) => {
    const end = new Date(at(`${start}:00`) + 3_600_000).toISOString();
    return { start: new Date(at(`${start}:00`)).toISOString(), end, energy_kwh: 1, export_kwh: null, estimated: false };
  };
  return { from: '2026-01-10T00:00:00Z', to: '2026-01-11T00:00:00Z', devices: ['meter'], items: starts.map(item) } as unknown as EnergySeries;
}

describe('what the counters gained', () => {
  it('is the difference of two states, by quarter', () => {
    const before = { ...energyToday(series([]), 0, undefined), gained: { [at('08:00:00')]: { kwh: 0.25, exportKwh: 0 } } };
    const after = { ...before, gained: { [at('08:00:00')]: { kwh: 0.75, exportKwh: 0 }, [at('08:15:00')]: { kwh: 0, exportKwh: 0.5 } } };
    expect([...gainsBetween(before, after)]).toEqual([
      [at('08:00:00'), { kwh: 0.5, exportKwh: 0 }],
      [at('08:15:00'), { kwh: 0, exportKwh: 0.5 }],
    ]);
    expect(gainsBetween(after, after).size).toBe(0);
  });

  it('goes into the bucket that holds it, and into no other', () => {
    const changed = withGains(series(['07:00', '08:00']), new Map([[at('08:15:00'), { kwh: 0.5, exportKwh: 0.25 }]]));
    expect(changed?.items.map(({ energy_kwh, export_kwh }) => [energy_kwh, export_kwh])).toEqual([
      [1, null],
      [1.5, 0.25],
    ]);
  });

  it('leaves a period of the past as it is, and has one asked again that knows nothing of the new bucket', () => {
    const past = series(['07:00']);
    expect(withGains(past, new Map([[Date.parse('2026-02-01T00:00:00Z'), { kwh: 1, exportKwh: 0 }]]))).toBe(past);
    expect(withGains(past, new Map([[at('09:00:00'), { kwh: 1, exportKwh: 0 }]]))).toBeNull();
  });
});
