import { describe, expect, it } from 'vitest';
import { DAY, HOUR, MINUTE } from '../time/zone';
import { isWhole, moved, overlaps, selected, SHORTEST_VIEW_MS, zoomed } from './range';

const DAY_LONG = { from: 0, to: DAY };

describe('zoomed', () => {
  it.each([
    ['comes closer around the middle', DAY_LONG, 0.5, 12 * HOUR, { from: 6 * HOUR, to: 18 * HOUR }],
    ['keeps the instant under the pointer in its place', DAY_LONG, 0.5, 6 * HOUR, { from: 3 * HOUR, to: 15 * HOUR }],
    ['goes no farther than there is', { from: 6 * HOUR, to: 18 * HOUR }, 4, 12 * HOUR, DAY_LONG],
    ['is pushed back inside at an edge', { from: 0, to: 6 * HOUR }, 2, 6 * HOUR, { from: 0, to: 12 * HOUR }],
  ])('%s', (_, view, factor, at, expected) => {
    expect(zoomed(view, DAY_LONG, factor, at)).toEqual(expected);
  });

  it('comes no closer than the shortest view', () => {
    const view = zoomed(DAY_LONG, DAY_LONG, 1e-9, HOUR);
    expect(view.to - view.from).toBeCloseTo(SHORTEST_VIEW_MS, 3);
  });
});

describe('moved', () => {
  it('goes by a share of its length and stops at the ends', () => {
    const view = { from: 6 * HOUR, to: 12 * HOUR };
    expect(moved(view, DAY_LONG, 0.5)).toEqual({ from: 9 * HOUR, to: 15 * HOUR });
    expect(moved(view, DAY_LONG, 9)).toEqual({ from: 18 * HOUR, to: 24 * HOUR });
    expect(moved(view, DAY_LONG, -9)).toEqual({ from: 0, to: 6 * HOUR });
  });
});

describe('selected', () => {
  it('takes either direction, stays inside, and takes a click for no choice', () => {
    expect(selected(8 * HOUR, 2 * HOUR, DAY_LONG)).toEqual({ from: 2 * HOUR, to: 8 * HOUR });
    expect(selected(-HOUR, 2 * HOUR, DAY_LONG)).toEqual({ from: 0, to: 2 * HOUR });
    expect(selected(HOUR, HOUR + MINUTE, DAY_LONG)).toBeNull();
  });
});

it('knows the whole and what overlaps', () => {
  expect(isWhole(DAY_LONG, DAY_LONG)).toBe(true);
  expect(isWhole({ from: 1, to: DAY }, DAY_LONG)).toBe(false);
  expect(overlaps({ from: 0, to: 5 }, { from: 5, to: 9 })).toBe(false);
  expect(overlaps({ from: 0, to: 6 }, { from: 5, to: 9 })).toBe(true);
});
