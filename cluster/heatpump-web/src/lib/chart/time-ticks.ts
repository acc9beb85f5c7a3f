/** Where a time axis has its marks: at whole hours, days, months or years of the household's clock, however long the view is. Pure. */
import { DAY, HOUR, hoursOfDay, localDate, MINUTE, startOfDate } from '../time/zone';
import type { TimeRange } from './range';

export type TickUnit = 'minute' | 'hour' | 'day' | 'month' | 'year';

export interface TimeTicks {
  readonly unit: TickUnit;
  readonly instants: readonly number[];
}

const HOUR_STEPS = [1, 2, 3, 6, 12] as const;
const DAY_STEPS = [1, 2, 7, 14] as const;
const MONTH_STEPS = [1, 2, 3, 6] as const;
const MINUTE_STEPS = [1, 2, 5, 10, 15, 30] as const;

/** At most `most` marks. */
export function timeTicks(view: TimeRange, zone: string, most: number): TimeTicks {
  const span = view.to - view.from;
  const inside = (instant: number) => instant >= view.from && instant <= view.to;
  const minutes = MINUTE_STEPS.find((step) => span / (step * MINUTE) <= most);
  if (minutes !== undefined) {
    // Offsets of zones are whole quarters of an hour: steps counted from the hour's start meet the clock's.
    const step = minutes * MINUTE;
    const first = Math.ceil(view.from / step) * step;
    const instants = Array.from({ length: Math.max(0, Math.floor((view.to - first) / step) + 1) }, (_, index) => first + index * step);
    return { unit: 'minute', instants };
  }
  const hours = HOUR_STEPS.find((step) => span / (step * HOUR) <= most);
  if (hours !== undefined) {
    const instants = days(view, zone).flatMap((day) =>
      hoursOfDay(day, zone)
        .filter((hour) => hour.hour % hours === 0 && !hour.repeated)
        .map((hour) => hour.start),
    );
    return { unit: 'hour', instants: instants.filter(inside) };
  }
  const step = DAY_STEPS.find((count) => span / (count * DAY) <= most);
  if (step !== undefined) {
    // Weeks begin on Monday; every second day is counted from a fixed one, so that marks stay while the view moves.
    const instants = days(view, zone).filter((day) => (dayNumber(day, zone) + 3) % step === 0);
    return { unit: 'day', instants: instants.filter(inside) };
  }
  const from = localDate(view.from, zone);
  const to = localDate(view.to, zone);
  const months = MONTH_STEPS.find((count) => span / (count * 30 * DAY) <= most);
  const every = months ?? 12 * Math.ceil(span / (366 * DAY) / most);
  const instants: number[] = [];
  for (let month = from.year * 12; month <= to.year * 12 + to.month; month += every) {
    instants.push(startOfDate({ year: Math.floor(month / 12), month: (month % 12) + 1, day: 1 }, zone));
  }
  return { unit: months === undefined ? 'year' : 'month', instants: instants.filter(inside) };
}

/** Days since 1970 on the household's calendar; the first was a Thursday. */
function dayNumber(instant: number, zone: string): number {
  const { year, month, day } = localDate(instant, zone);
  return Date.UTC(year, month - 1, day) / DAY;
}

function days(view: TimeRange, zone: string): number[] {
  const result: number[] = [];
  const date = localDate(view.from, zone);
  for (let day = 0; ; day += 1) {
    const start = startOfDate({ ...date, day: date.day + day }, zone);
    if (start > view.to) return result;
    result.push(start);
  }
}
