import { describe, expect, it } from 'vitest';
import type { HeatpumpPoint } from '../../api/types';
import { MINUTE } from '../../lib/time/zone';
import { bandsOf, extremesOf, hoursOf, lineOf, shareOf, silences } from './history';

const START = Date.parse('2026-01-10T08:00:00Z');
const NOTHING: HeatpumpPoint = {
  device_id: 'ivt',
  time: '',
  outdoor_c: null,
  indoor_c: null,
  supply_c: null,
  return_c: null,
  hot_water_c: null,
  brine_in_c: null,
  brine_out_c: null,
  integral: null,
  flow_pump_percent: null,
  compressor_share: null,
  hot_water_share: null,
  aux_3kw_share: null,
  aux_6kw_share: null,
  count: 1,
};

function point(minute: number, fields: Partial<HeatpumpPoint> = {}): HeatpumpPoint {
  return { ...NOTHING, time: new Date(START + minute * MINUTE).toISOString(), ...fields };
}

const at = (minute: number) => START + minute * MINUTE;

describe('bandsOf', () => {
  it('joins buckets that ran alike and ends where nothing ran', () => {
    const points = [1, 1, 0.5, 0, 1].map((share, minute) => point(minute, { compressor_share: share }));
    expect(bandsOf(points, 'compressor', MINUTE)).toEqual([
      { from: at(0), to: at(2), share: 1 },
      { from: at(2), to: at(3), share: 0.5 },
      { from: at(4), to: at(5), share: 1 },
    ]);
  });

  it('never hides a part that ran for a moment, and draws nothing over silence', () => {
    expect(bandsOf([point(0, { hot_water_share: 0.01 })], 'hotWater', MINUTE)).toEqual([{ from: at(0), to: at(1), share: 0.1 }]);
    expect(bandsOf([point(0, { compressor_share: 1 }), point(9, { compressor_share: 1 })], 'compressor', MINUTE)).toHaveLength(2);
  });

  it('takes the two heaters for one, and not reported for not reported', () => {
    expect(shareOf(point(0, { aux_3kw_share: 0.2, aux_6kw_share: 0.7 }), 'auxiliary')).toBe(0.7);
    expect(shareOf(point(0, { aux_3kw_share: 0.2 }), 'auxiliary')).toBe(0.2);
    expect(shareOf(point(0), 'auxiliary')).toBeNull();
  });
});

describe('silences', () => {
  it('are stretches without a bucket, longer than a late one', () => {
    expect(silences([0, 1, 3, 20, 21].map((minute) => point(minute)), MINUTE)).toEqual([{ from: at(4), to: at(20) }]);
    expect(silences([], MINUTE)).toEqual([]);
  });

  it('break a line', () => {
    const points = [0, 1, 20].map((minute) => point(minute, { indoor_c: 21 }));
    expect(lineOf(points, (one) => one.indoor_c, MINUTE).map(({ value }) => value)).toEqual([21, 21, null, 21]);
  });
});

it('sums hours and finds extremes over what was reported', () => {
  const points = [point(0, { compressor_share: 1, supply_c: 30 }), point(30, { compressor_share: 0.5, supply_c: 40 }), point(60)];
  expect(hoursOf(points, 'compressor', 30 * MINUTE)).toBe(0.75);
  expect(extremesOf(points, [(one) => one.supply_c])).toEqual({ low: 30, high: 40 });
  expect(extremesOf(points, [(one) => one.outdoor_c])).toBeNull();
});
