import { describe, expect, it } from 'vitest';
import { bucketOf, bucketsOf, compared, dateText, parseDate, type Period, periodOf, rangeOf, sameHour, shifted } from './period';
import { DAY, HOUR } from './zone';

const ZONE = 'Europe/Stockholm';

function date(text: string) {
  const parsed = parseDate(text);
  if (parsed === null) throw new Error(text);
  return parsed;
}
const range = (first: string, last: string): Period => ({ span: 'range', first: date(first), last: date(last) });
const text = ({ first, last }: Period) => `${dateText(first)} ${dateText(last)}`;

describe('periodOf', () => {
  it.each([
    ['day', '2026-03-29', '2026-03-29 2026-03-29'],
    ['week', '2026-03-29', '2026-03-23 2026-03-29'],
    ['week', '2026-01-01', '2025-12-29 2026-01-04'],
    ['month', '2024-02-10', '2024-02-01 2024-02-29'],
    ['month', '2026-12-31', '2026-12-01 2026-12-31'],
    ['year', '2026-07-01', '2026-01-01 2026-12-31'],
  ] as const)('%s of %s', (span, day, expected) => {
    expect(text(periodOf(span, date(day)))).toBe(expected);
  });

  it('is as long as the household\'s clock makes it', () => {
    const length = (period: Period) => rangeOf(period, ZONE).to - rangeOf(period, ZONE).from;
    expect(length(periodOf('day', date('2026-03-29')))).toBe(23 * HOUR);
    expect(length(periodOf('day', date('2026-10-25')))).toBe(25 * HOUR);
    expect(length(periodOf('week', date('2026-03-29')))).toBe(7 * DAY - HOUR);
    expect(length(periodOf('year', date('2026-03-29')))).toBe(365 * DAY);
  });
});

describe('shifted', () => {
  it.each([
    [periodOf('day', date('2026-03-01')), -1, '2026-02-28 2026-02-28'],
    [periodOf('week', date('2026-01-01')), -1, '2025-12-22 2025-12-28'],
    [periodOf('month', date('2026-01-31')), -1, '2025-12-01 2025-12-31'],
    [periodOf('month', date('2025-12-31')), 2, '2026-02-01 2026-02-28'],
    [periodOf('year', date('2024-02-29')), -1, '2023-01-01 2023-12-31'],
    [range('2026-03-28', '2026-03-30'), -1, '2026-03-25 2026-03-27'],
  ])('%o by %i', (period, by, expected) => {
    expect(text(shifted(period, by))).toBe(expected);
  });
});

describe('compared', () => {
  it.each([
    [periodOf('day', date('2026-03-30')), 'previous', '2026-03-29 2026-03-29'],
    [periodOf('day', date('2024-02-29')), 'year', '2023-02-28 2023-02-28'],
    [periodOf('week', date('2026-03-25')), 'year', '2025-03-24 2025-03-30'],
    [periodOf('month', date('2024-02-10')), 'year', '2023-02-01 2023-02-28'],
    [periodOf('year', date('2026-01-01')), 'year', '2025-01-01 2025-12-31'],
  ] as const)('%o with %s', (period, comparison, expected) => {
    expect(text(compared(period, comparison))).toBe(expected);
  });
});

describe('bucketsOf', () => {
  it.each([
    ['the day that loses an hour', periodOf('day', date('2026-03-29')), 'hour', 23],
    ['the day that has one twice', periodOf('day', date('2026-10-25')), 'hour', 25],
    ['a week', periodOf('week', date('2026-03-29')), 'day', 7],
    ['a leap February', periodOf('month', date('2024-02-01')), 'day', 29],
    ['a year', periodOf('year', date('2026-02-01')), 'month', 12],
    ['three days over the change', range('2026-03-28', '2026-03-30'), 'hour', 71],
    ['a quarter', range('2026-01-01', '2026-03-31'), 'day', 90],
    ['parts of two months', range('2025-01-15', '2025-06-10'), 'month', 6],
    ['ten years', range('2016-03-01', '2025-12-31'), 'year', 10],
  ] as const)('%s', (_, period, bucket, count) => {
    const buckets = bucketsOf(period, ZONE);
    expect(bucketOf(period)).toBe(bucket);
    expect(buckets).toHaveLength(count);
    for (const [index, one] of buckets.entries()) {
      if (index > 0) expect(one.from).toBe(buckets[index - 1]?.to);
    }
    expect(buckets.at(-1)?.to).toBeGreaterThanOrEqual(rangeOf(period, ZONE).to);
  });
});

it('buckets of a comparison are those of what it is compared with', () => {
  const chosen = range('2025-01-01', '2025-04-02');
  expect(bucketOf(chosen)).toBe('day');
  const leap = compared(chosen, 'year');
  expect(bucketsOf(leap, ZONE, bucketOf(chosen))).toHaveLength(93);
});

describe('sameHour', () => {
  it.each([
    ['an ordinary day', '2026-01-10T12:34:00Z', 1, '2026-01-09T12:00:00.000Z'],
    ['over the change, by the clock and not by 24 hours', '2026-03-29T12:34:00Z', 1, '2026-03-28T13:00:00.000Z'],
    ['a week back over it', '2026-10-27T06:10:00Z', 7, '2026-10-20T05:00:00.000Z'],
    ['an hour that day did not have', '2026-03-30T00:30:00Z', 1, undefined],
  ])('%s', (_, now, days, from) => {
    const hour = sameHour(Date.parse(now), days, ZONE);
    expect(hour === null ? undefined : new Date(hour.from).toISOString()).toBe(from);
  });
});

it.each(['2026-02-30', '2026-13-01', '26-01-01', '', null, '1999-01-01', '2026-00-10'])('refuses %s', (wrong) => {
  expect(parseDate(wrong)).toBeNull();
});
