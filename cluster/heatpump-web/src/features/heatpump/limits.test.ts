import { describe, expect, it } from 'vitest';
import { check, draftOf, LIMITS, SETTING_NAMES, stepped, wholeNumber } from './limits';
import { NOT_REPORTED } from './queries';

const CURRENT = { ...NOT_REPORTED, indoor_target_c: 21, curve_min: 22, curve_max: 55 };

describe('check', () => {
  it.each(SETTING_NAMES)('%s takes both its limits and nothing beyond', (name) => {
    const { low, high } = LIMITS[name];
    for (const value of [low, high]) expect(check({ [name]: String(value) }, NOT_REPORTED)).toEqual({ faults: null, changes: { [name]: value } });
    for (const value of [low - 1, high + 1]) expect(check({ [name]: String(value) }, NOT_REPORTED)).toEqual({ faults: { [name]: { kind: 'limits', low, high } }, changes: null });
  });

  it('sends only what differs from what holds', () => {
    expect(check({ indoor_target_c: '21', curve_max: '50' }, CURRENT)).toEqual({ faults: null, changes: { curve_max: 50 } });
    expect(check({ indoor_target_c: ' ' }, CURRENT)).toEqual({ faults: null, changes: {} });
  });

  it('holds the curve\'s minimum below its maximum, whichever is changed', () => {
    expect(check({ curve_max: '21' }, CURRENT).faults).toEqual({ curve_max: { kind: 'minAboveMax' } });
    expect(check({ curve_min: '40' }, { ...CURRENT, curve_max: 30 }).faults).toEqual({ curve_min: { kind: 'minAboveMax' } });
    expect(check({ curve_min: '22', curve_max: '22' }, CURRENT).changes).toEqual({ curve_max: 22 });
  });

  it.each(['21.5', '21,5', 'warm', '2 2', '0x10', '1e1', '--5'])('%s is not a whole number', (text) => {
    expect(check({ indoor_target_c: text }, CURRENT).faults).toEqual({ indoor_target_c: { kind: 'number' } });
  });
});

it('reads a minus as people and keyboards write it', () => {
  expect(['-5', '\u22125', '\u20135', ' +5 '].map(wholeNumber)).toEqual([-5, -5, -5, 5]);
});

describe('stepped', () => {
  it.each([
    ['from what the pump has', undefined, 21, 1, '22'],
    ['from what is typed', '25', 21, -1, '24'],
    ['from nothing', undefined, null, 1, '15'],
    ['not beyond the limit', '30', 21, 1, '30'],
    ['back inside', '99', 21, 1, '30'],
  ] as const)('%s', (_, text, from, by, expected) => {
    expect(stepped('indoor_target_c', text, from, by)).toBe(expected);
  });
});

it('takes from storage only texts of settings', () => {
  expect(draftOf({ curve: '40', mode: 3, other: 'x', integral: 'y'.repeat(99) })).toEqual({ curve: '40' });
  expect(draftOf('x')).toEqual({});
});
