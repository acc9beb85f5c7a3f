import { describe, expect, it } from 'vitest';
import { HOUR, MINUTE, SECOND } from '../time/zone';
import { isStale, staleAfter } from './staleness';

describe('staleAfter', () => {
  it('knows how often each kind reports', () => {
    expect(staleAfter('energy')).toBe(30 * SECOND);
    expect(staleAfter('heatpump')).toBe(100 * SECOND);
  });

  it.each([
    ['a battery sensor', 7200, 3 * HOUR],
    ['a sensor fed by USB', 600, 15 * MINUTE],
    ['a sensor that has not said', null, 3 * HOUR],
    ['a period that cannot be', 0, 3 * HOUR],
    ['a negative period', -5, 3 * HOUR],
    ['a period of a second does not flicker', 1, MINUTE],
  ])('one and a half periods: %s', (_, period, limit) => {
    expect(staleAfter('temperature', period)).toBe(limit);
  });
});

it('a value is stale after the limit, not at it, and never when it is ahead of this clock', () => {
  expect(isStale(1000, 31_000, 30_000)).toBe(false);
  expect(isStale(1000, 31_001, 30_000)).toBe(true);
  expect(isStale(99_000, 31_000, 30_000)).toBe(false);
});
