import { describe, expect, it } from 'vitest';
import { mergeReading } from '../../lib/live/tracked';
import { housePower, mainMeters } from './house-power';
import type { Meter, MeterFields } from './queries';
import { extendTrace, traceShape, type TracePoint } from './trace';

function meter(deviceId: string, values: Partial<MeterFields>, time = 1000): Meter {
  return mergeReading<MeterFields>(undefined, { deviceId, agent: 'p0', location: null, clock: 'synced', time, values });
}

describe('mainMeters', () => {
  const house = meter('house', { power_w: 3000 });
  const sub = meter('sub', { power_w: 500 });

  it.each([
    ['those the API names', [house, sub], ['house'], [house]],
    ['the only one, while the API has not answered', [house], undefined, [house]],
    ['the only one, when the API names none', [house], [], [house]],
    ['none of several, when none is named: a sum would count twice', [house, sub], [], []],
    ['none of several, while the API has not answered', [house, sub], undefined, []],
  ])('%s', (_, meters, ids, expected) => {
    expect(mainMeters(meters, ids)).toEqual(expected);
  });
});

describe('housePower', () => {
  it('knows a meter that counts both ways apart', () => {
    expect(housePower([meter('a', { power_w: 0, export_power_w: 1200 })])).toMatchObject({ netW: -1200, importW: 0, exportW: 1200 });
  });

  it('knows a meter whose power has a sign', () => {
    expect(housePower([meter('a', { power_w: -800 })])).toMatchObject({ netW: -800, importW: 0, exportW: 800 });
  });

  it('passes power beyond 16 bits', () => {
    expect(housePower([meter('a', { power_w: 40_321 })])).toMatchObject({ netW: 40_321, importW: 40_321, exportW: 0 });
  });

  it('adds main meters, and is as old as the oldest', () => {
    const power = housePower([meter('a', { power_w: 100, power_l1_w: 60, voltage_l1_v: 231 }, 5000), meter('b', { power_w: 200, power_l1_w: 40 }, 2000)]);
    expect(power).toMatchObject({ netW: 300, time: 2000 });
    expect(power.phases[0]).toEqual({ number: 1, watts: 100, volts: 231, amperes: null });
  });

  it('has nothing to say about a meter that has not reported its power', () => {
    expect(housePower([meter('a', {})])).toMatchObject({ netW: null, importW: null, exportW: null, time: null, phases: [] });
  });
});

describe('trace', () => {
  const extend = (points: TracePoint[]) => points.reduce<readonly TracePoint[]>(extendTrace, []);

  it('keeps order and a window of five minutes', () => {
    const trace = extend([
      { time: 0, watts: 1 },
      { time: 250_000, watts: 2 },
      { time: 240_000, watts: 3 },
      { time: 310_000, watts: 4 },
    ]);
    expect(trace.map((point) => point.watts)).toEqual([2, 4]);
  });

  it('stays bounded however fast a meter sends', () => {
    expect(extend(Array.from({ length: 2000 }, (_, index) => ({ time: index, watts: index })))).toHaveLength(600);
  });

  it('draws from two points on, and breaks where readings were missing', () => {
    expect(traceShape([{ time: 0, watts: 5 }])).toBeNull();
    const shape = traceShape([
      { time: 0, watts: 500 },
      { time: 1000, watts: 600 },
      { time: 60_000, watts: 700 },
      { time: 61_000, watts: 800 },
    ]);
    expect(shape?.line.match(/M/g)).toHaveLength(2);
    expect([shape?.lowW, shape?.highW]).toEqual([500, 800]);
  });

  it('never divides by nothing', () => {
    expect(traceShape([{ time: 0, watts: 0 }, { time: 1000, watts: 0 }])?.line).not.toContain('NaN');
  });
});
