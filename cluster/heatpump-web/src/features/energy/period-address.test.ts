import { describe, expect, it } from 'vitest';
import { dateText } from '../../lib/time/period';
import { addressOf, inSpan, shownOf } from './period-address';

const TODAY = { year: 2026, month: 3, day: 29 };

describe('shownOf', () => {
  it.each([
    ['', 'day 2026-03-29 2026-03-29 none'],
    ['span=month&date=2026-02-10', 'month 2026-02-01 2026-02-28 none'],
    ['span=week&date=2026-03-29&compare=year', 'week 2026-03-23 2026-03-29 year'],
    ['span=range&from=2026-03-20&to=2026-03-10', 'range 2026-03-10 2026-03-20 none'],
    ['span=range&from=2026-03-20', 'range 2026-03-20 2026-03-20 none'],
    ['span=range&from=2001-01-01&to=2199-12-31', 'range 2150-12-28 2199-12-31 none'],
    ['span=decade&date=2026-02-31&compare=all', 'day 2026-03-29 2026-03-29 none'],
  ])('%s', (address, expected) => {
    const { period, comparison } = shownOf(new URLSearchParams(address), TODAY);
    expect(`${period.span} ${dateText(period.first)} ${dateText(period.last)} ${comparison}`).toBe(expected);
  });

  it('reads what addressOf wrote', () => {
    for (const address of ['span=year&date=2026-01-01', 'span=range&from=2026-01-05&to=2026-02-01&compare=previous']) {
      expect(addressOf(shownOf(new URLSearchParams(address), TODAY)).toString()).toBe(address);
    }
  });
});

it('goes to today from a period that holds it, and to the first day from any other', () => {
  const year = shownOf(new URLSearchParams('span=year&date=2026-01-01'), TODAY);
  expect(dateText(inSpan(year, 'day', TODAY).period.first)).toBe('2026-03-29');
  const past = shownOf(new URLSearchParams('span=year&date=2025-01-01'), TODAY);
  expect(dateText(inSpan(past, 'month', TODAY).period.first)).toBe('2025-01-01');
});
