import { describe, expect, it } from 'vitest';
import { ageOf, Format, NOTHING } from './format';

const english = new Format('en-GB', 'Europe/Stockholm');
const swedish = new Format('sv-SE', 'Europe/Stockholm');

describe('power', () => {
  it.each([
    [0, '0', 'W'],
    [3241.4, '3,241', 'W'],
    [40_321, '40,321', 'W'],
    [-51.7, '\u221252', 'W'],
    [-0.2, '0', 'W'],
    [123_456, '123.5', 'kW'],
    [null, NOTHING, 'W'],
    [undefined, NOTHING, 'W'],
  ])('%s', (watts, value, unit) => {
    expect(english.power(watts)).toEqual({ value, unit });
  });
});

describe('energy', () => {
  it.each([
    [0, '0.00'],
    [0.123, '0.12'],
    [9.994, '9.99'],
    [12.34, '12.3'],
    [null, NOTHING],
  ])('%s', (kwh, value) => {
    expect(english.energy(kwh).value).toBe(value);
  });
});

it('writes numbers in the language of the browser', () => {
  expect(swedish.number(-1234.5, 1)).toBe('\u22121\u00a0234,5');
});

it('never shows a number that is none', () => {
  expect(english.number(Number.NaN)).toBe(NOTHING);
});

it('shows times in the zone of the household, in 24 hours', () => {
  const evening = Date.parse('2026-07-15T22:05:00Z');
  expect(english.clock(evening)).toBe('00:05');
  expect(new Format('en-US', 'Europe/Stockholm').clock(evening)).toBe('00:05');
  expect(english.date(evening)).toContain('16 July');
});

it('ageOf counts in the unit that matters', () => {
  const now = Date.parse('2026-01-15T12:00:00Z');
  const ago = (seconds: number) => ageOf(now - seconds * 1000, now);
  expect(ago(-3)).toEqual({ unit: 'now' });
  expect(ago(1.9)).toEqual({ unit: 'now' });
  expect(ago(2)).toEqual({ unit: 'second', count: 2 });
  expect(ago(59.9)).toEqual({ unit: 'second', count: 59 });
  expect(ago(60)).toEqual({ unit: 'minute', count: 1 });
  expect(ago(3600)).toEqual({ unit: 'hour', count: 1 });
  expect(ago(47 * 3600)).toEqual({ unit: 'hour', count: 47 });
  expect(ago(48 * 3600)).toEqual({ unit: 'day', count: 2 });
});
