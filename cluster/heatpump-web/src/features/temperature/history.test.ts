import { describe, expect, it } from 'vitest';
import { HOUR, MINUTE } from '../../lib/time/zone';
import { addPoint, extremes, moments, roomHistory, withLive } from './history';

const point = (minutes: number, celsius: number) => ({ time: minutes * MINUTE, celsius });

describe('roomHistory', () => {
  it('sorts readings and leaves out those without a temperature', () => {
    const item = (time: string, celsius: number | null) => ({ device_id: 'd', location: null, time, temperature_c: celsius, humidity_percent: null });
    const items = [item('2026-01-01T10:00:00Z', 21), item('2026-01-01T09:00:00Z', null), item('2026-01-01T08:00:00Z', 20)];
    const history = roomHistory({ from: '', to: '', resolution_seconds: null, items });
    expect(history.map((one) => one.celsius)).toEqual([20, 21]);
  });
});

describe('withLive', () => {
  it('keeps what the live stream brought and the answer does not have yet, and nothing twice', () => {
    const answer = [point(0, 20), point(10, 21)];
    expect(withLive(answer, [point(5, 19), point(10, 21), point(20, 22)], 0)).toEqual([...answer, point(20, 22)]);
    expect(withLive([], [point(20, 22), point(30, 23)], 0)).toEqual([point(20, 22), point(30, 23)]);
    expect(withLive(answer, [], 0)).toEqual(answer);
  });
});

describe('addPoint', () => {
  const history = [point(0, 20), point(10, 21)];

  it('puts a reading in its place, late or not', () => {
    expect(addPoint(history, point(20, 22), 0).map((one) => one.celsius)).toEqual([20, 21, 22]);
    expect(addPoint(history, point(5, 19), 0).map((one) => one.celsius)).toEqual([20, 19, 21]);
  });

  it('takes the same moment once', () => {
    expect(addPoint(history, point(10, 21), 0)).toBe(history);
  });

  it('lets go of what is older than the window', () => {
    expect(addPoint(history, point(20, 22), 5 * MINUTE).map((one) => one.celsius)).toEqual([21, 22]);
    expect(addPoint(history, point(1, 22), 5 * MINUTE)).toBe(history);
  });

  it('stays bounded', () => {
    let long: ReturnType<typeof addPoint> = [];
    for (let minute = 0; minute < 5000; minute += 1) long = addPoint(long, point(minute, 20), 0);
    expect(long).toHaveLength(4000);
    expect(long.at(-1)?.time).toBe(4999 * MINUTE);
  });
});

describe('moments', () => {
  const values = (room: { history: ReturnType<typeof point>[]; maxGapMs: number }, to: number) =>
    moments([room], 0, to * MINUTE).map((moment) => moment.celsius[0]);

  it('draws a straight line between readings and holds the last one for a while', () => {
    expect(values({ history: [point(0, 20), point(20, 22)], maxGapMs: 20 * MINUTE }, 50)).toEqual([20, 21, 22, 22, 22, null]);
  });

  it('leaves a gap where readings are too far apart', () => {
    expect(values({ history: [point(0, 20), point(40, 22)], maxGapMs: 30 * MINUTE }, 40)).toEqual([20, null, null, null, 22]);
  });

  it('keeps a reading that stands alone between two gaps', () => {
    expect(values({ history: [point(0, 20), point(65, 22), point(130, 21)], maxGapMs: 30 * MINUTE }, 130).filter((value) => value !== null)).toEqual([20, 22, 21]);
  });

  it('shows nothing before the first reading', () => {
    expect(values({ history: [point(15, 20)], maxGapMs: HOUR }, 30)).toEqual([null, null, 20, 20]);
  });

  it('ends at the present even between two steps', () => {
    expect(moments([], 0, 25 * MINUTE).map((moment) => moment.time / MINUTE)).toEqual([0, 10, 20, 25]);
  });
});

it('extremes covers all rooms, and nothing is null', () => {
  expect(extremes([[point(0, 20)], [point(0, -4), point(1, 3)]])).toEqual({ low: -4, high: 20 });
  expect(extremes([[], []])).toBeNull();
});
