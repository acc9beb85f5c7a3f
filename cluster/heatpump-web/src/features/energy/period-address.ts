/** Which period the page shows, as it stands in its address: a link to a month is a link to that month. Pure. */
import { bucketOf, type Comparison, dateText, isBefore, parseDate, type Period, periodOf, type Span, SPANS } from '../../lib/time/period';
import type { LocalDate } from '../../lib/time/zone';

export interface Shown {
  readonly period: Period;
  readonly comparison: Comparison;
}

/** What cannot be read is today: an old link must not end in an error. */
export function shownOf(address: URLSearchParams, today: LocalDate): Shown {
  const span = SPANS.find((one) => one === address.get('span')) ?? 'day';
  const compare = address.get('compare');
  const comparison = compare === 'previous' || compare === 'year' ? compare : 'none';
  if (span !== 'range') return { period: periodOf(span, parseDate(address.get('date')) ?? today), comparison };
  const first = parseDate(address.get('from')) ?? today;
  const last = parseDate(address.get('to')) ?? first;
  const period: Period = isBefore(last, first) ? { span, first: last, last: first } : { span, first, last };
  return { period: shortened(period), comparison };
}

/** The API gives 50 years at once, and no house has been measured for longer. */
const MOST_YEARS = 50;

function shortened(period: Period): Period {
  const earliest = { ...period.last, year: period.last.year - MOST_YEARS + 1, day: Math.min(period.last.day, 28) };
  return bucketOf(period) === 'year' && isBefore(period.first, earliest) ? { ...period, first: earliest } : period;
}

export function addressOf({ period, comparison }: Shown): URLSearchParams {
  const compare = comparison === 'none' ? {} : { compare: comparison };
  if (period.span === 'range') return new URLSearchParams({ span: 'range', from: dateText(period.first), to: dateText(period.last), ...compare });
  return new URLSearchParams({ span: period.span, date: dateText(period.first), ...compare });
}

/** The same place in time in another span; from a range, its first day. */
export function inSpan({ period, comparison }: Shown, span: Span, today: LocalDate): Shown {
  if (span === 'range') return { period: { ...period, span }, comparison };
  // Of a period that holds today, today is what one wants to see closer.
  const holdsToday = !isBefore(today, period.first) && !isBefore(period.last, today);
  return { period: periodOf(span, holdsToday ? today : period.first), comparison };
}
