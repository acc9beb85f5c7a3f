/**
 * The stretches of time a person compares: days, weeks, months and years of the household's calendar, and any other range. Lengths differ
 * (months, leap years, clock changes); nothing here counts in fixed hours. Pure.
 */
import type { TimeRange } from '../chart/range';
import { DAY, hoursOfDay, localDate, type LocalDate, startOfDate } from './zone';

export const SPANS = ['day', 'week', 'month', 'year', 'range'] as const;
export type Span = (typeof SPANS)[number];
export type Bucket = 'hour' | 'day' | 'month' | 'year';
export type Comparison = 'none' | 'previous' | 'year';

/** A stretch as the page's address holds it: local dates, so that it means the same wherever it is opened. */
export interface Period {
  readonly span: Span;
  /** First day. */
  readonly first: LocalDate;
  /** Last day, included. */
  readonly last: LocalDate;
}

/** The day, week (from Monday), month or year that holds a date. */
export function periodOf(span: Exclude<Span, 'range'>, date: LocalDate): Period {
  switch (span) {
    case 'day':
      return { span, first: date, last: date };
    case 'week': {
      const monday = addDays(date, -weekday(date));
      return { span, first: monday, last: addDays(monday, 6) };
    }
    case 'month':
      return { span, first: { ...date, day: 1 }, last: addDays({ year: date.year, month: date.month + 1, day: 1 }, -1) };
    case 'year':
      return { span, first: { year: date.year, month: 1, day: 1 }, last: { year: date.year, month: 12, day: 31 } };
  }
}

export function rangeOf(period: Period, zone: string): TimeRange {
  return { from: startOfDate(period.first, zone), to: startOfDate(addDays(period.last, 1), zone) };
}

/** The period `by` of its own kind later; a range moves by its own length. */
export function shifted(period: Period, by: number): Period {
  const { first, last, span } = period;
  switch (span) {
    case 'day':
      return periodOf(span, addDays(first, by));
    case 'week':
      return periodOf(span, addDays(first, 7 * by));
    case 'month':
      return periodOf(span, normal({ year: first.year, month: first.month + by, day: 1 }));
    case 'year':
      return periodOf(span, { year: first.year + by, month: 1, day: 1 });
    case 'range': {
      const days = dayNumber(last) - dayNumber(first) + 1;
      return { span, first: addDays(first, by * days), last: addDays(last, by * days) };
    }
  }
}

/** What the period is compared with. A year ago, a week begins on the Monday nearest to the same date, so that weekdays face each other. */
export function compared(period: Period, comparison: Exclude<Comparison, 'none'>): Period {
  if (comparison === 'previous') return shifted(period, -1);
  const { span, first, last } = period;
  switch (span) {
    case 'day':
    case 'range': {
      // 29 February is compared with the 28th.
      const yearAgo = (date: LocalDate) => ({ ...date, year: date.year - 1, day: Math.min(date.day, daysInMonth(date.year - 1, date.month)) });
      return { span, first: yearAgo(first), last: yearAgo(last) };
    }
    case 'week':
      return shifted(period, -52);
    case 'month':
      return shifted(period, -12);
    case 'year':
      return shifted(period, -1);
  }
}

/** How finely a period is drawn: bars that can be told apart, within what the API answers at once. */
export function bucketOf(period: Period): Bucket {
  const days = dayNumber(period.last) - dayNumber(period.first) + 1;
  switch (period.span) {
    case 'day':
      return 'hour';
    case 'week':
    case 'month':
      return 'day';
    case 'year':
      return 'month';
    case 'range':
      if (days <= 3) return 'hour';
      if (days <= 92) return 'day';
      return days <= 5 * 366 ? 'month' : 'year';
  }
}

/** Every bucket that begins in the period, in order, whether anything was measured in it or not. Of months and years it holds a part of, all. */
export function bucketsOf(period: Period, zone: string, bucket: Bucket = bucketOf(period)): readonly TimeRange[] {
  const { from, to } = rangeOf(period, zone);
  const buckets: TimeRange[] = [];
  if (bucket === 'hour') {
    for (let date = period.first; dayNumber(date) <= dayNumber(period.last); date = addDays(date, 1)) {
      for (const hour of hoursOfDay(startOfDate(date, zone), zone)) buckets.push({ from: hour.start, to: hour.end });
    }
    return buckets;
  }
  const step = (date: LocalDate): LocalDate => {
    if (bucket === 'day') return addDays(date, 1);
    return bucket === 'month' ? normal({ year: date.year, month: date.month + 1, day: 1 }) : { year: date.year + 1, month: 1, day: 1 };
  };
  const start = (date: LocalDate): LocalDate => (bucket === 'day' ? date : { ...date, day: 1, ...(bucket === 'year' && { month: 1 }) });
  for (let date = start(period.first); ; date = step(date)) {
    const bucketFrom = startOfDate(date, zone);
    if (bucketFrom >= to) return buckets;
    // A month the range begins in the middle of is shown whole, as the API answers it.
    if (bucketFrom >= from || bucket !== 'day') buckets.push({ from: bucketFrom, to: startOfDate(step(date), zone) });
  }
}

/** The hour the household's clock shows now, on the day `daysAgo`; null where that day's clock skipped it. */
export function sameHour(now: number, daysAgo: number, zone: string): TimeRange | null {
  const current = hoursOfDay(now, zone).find(({ start, end }) => now >= start && now < end);
  const day = startOfDate(addDays(localDate(now, zone), -daysAgo), zone);
  const hour = hoursOfDay(day, zone).find((one) => one.hour === current?.hour);
  return hour === undefined ? null : { from: hour.start, to: hour.end };
}

export function parseDate(text: string | null): LocalDate | null {
  const match = /^(\d{4})-(\d{2})-(\d{2})$/.exec(text ?? '');
  if (match === null) return null;
  const date = { year: Number(match[1]), month: Number(match[2]), day: Number(match[3]) };
  // The API answers these years; 31 February is none.
  if (date.year < 2000 || date.year > 2199 || date.month < 1 || date.month > 12) return null;
  return date.day >= 1 && date.day <= daysInMonth(date.year, date.month) ? date : null;
}

export function dateText({ year, month, day }: LocalDate): string {
  return `${String(year).padStart(4, '0')}-${String(month).padStart(2, '0')}-${String(day).padStart(2, '0')}`;
}

export function addDays(date: LocalDate, days: number): LocalDate {
  return normal({ ...date, day: date.day + days });
}

export function isBefore(a: LocalDate, b: LocalDate): boolean {
  return dayNumber(a) < dayNumber(b);
}

/** 0 Monday to 6 Sunday. */
function weekday(date: LocalDate): number {
  return (dayNumber(date) + 3) % 7;
}

function daysInMonth(year: number, month: number): number {
  return new Date(Date.UTC(year, month, 0)).getUTCDate();
}

function normal(date: LocalDate): LocalDate {
  const at = new Date(Date.UTC(date.year, date.month - 1, date.day));
  return { year: at.getUTCFullYear(), month: at.getUTCMonth() + 1, day: at.getUTCDate() };
}

function dayNumber({ year, month, day }: LocalDate): number {
  return Date.UTC(year, month - 1, day) / DAY;
}
