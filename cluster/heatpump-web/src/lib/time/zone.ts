/**
 * Days and hours of the household's time zone. Instants are milliseconds since the epoch everywhere; a zone is applied only here and in
 * lib/format. Never uses the zone of the machine the browser runs on.
 */

export const SECOND = 1_000;
export const MINUTE = 60 * SECOND;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

export interface LocalDate {
  readonly year: number;
  /** 1 to 12. */
  readonly month: number;
  readonly day: number;
}

export interface LocalHour {
  readonly start: number;
  readonly end: number;
  /** Hour of the wall clock at `start`, 0 to 23. */
  readonly hour: number;
  /** The wall clock shows this hour a second time (the end of daylight saving). */
  readonly repeated: boolean;
}

/** The day that holds `instant`, as start (included) and end (not included); 23 to 25 hours long where clocks change. */
export function localDay(instant: number, zone: string): { start: number; end: number } {
  const date = localDate(instant, zone);
  return { start: startOfDate(date, zone), end: startOfDate({ ...date, day: date.day + 1 }, zone) };
}

/** The hours of a local day in order. The clock change makes 23 or 25 of them; none is skipped or merged. */
export function hoursOfDay(instant: number, zone: string): LocalHour[] {
  const { start, end } = localDay(instant, zone);
  const hours: LocalHour[] = [];
  // Steps to the next whole hour of the wall clock: a zone whose change is half an hour gets one short hour.
  for (let at = start; at < end; ) {
    const wall = wallClock(at, zone);
    const next = Math.min(at + HOUR - (wall % HOUR), end);
    const hour = Math.floor(wall / HOUR) % 24;
    hours.push({ start: at, end: next, hour, repeated: hours.some((earlier) => earlier.hour === hour) });
    at = next;
  }
  return hours;
}

export function localDate(instant: number, zone: string): LocalDate {
  const wall = new Date(wallClock(instant, zone));
  return { year: wall.getUTCFullYear(), month: wall.getUTCMonth() + 1, day: wall.getUTCDate() };
}

/** The first instant of a local date. `day` may run over the month's end. */
export function startOfDate(date: LocalDate, zone: string): number {
  const midnight = Date.UTC(date.year, date.month - 1, date.day);
  const before = offset(midnight - DAY, zone);
  const after = offset(midnight + DAY, zone);
  // The offset at midnight is one of these two unless the zone changes twice in two days, which none does.
  for (const candidate of [midnight - Math.max(before, after), midnight - Math.min(before, after)]) {
    if (wallClock(candidate, zone) === midnight) return candidate;
  }
  // Midnight itself was skipped: the day starts where the clocks jumped.
  return midnight - before;
}

function offset(instant: number, zone: string): number {
  return wallClock(instant, zone) - instant;
}

/** What the wall clock of the zone shows, as if it were UTC. */
function wallClock(instant: number, zone: string): number {
  const part: Partial<Record<Intl.DateTimeFormatPartTypes, number>> = {};
  for (const { type, value } of partsFormat(zone).formatToParts(instant)) part[type] = Number(value);
  const whole = Date.UTC(part.year ?? 0, (part.month ?? 1) - 1, part.day, part.hour, part.minute, part.second);
  return whole + (((instant % SECOND) + SECOND) % SECOND);
}

const formats = new Map<string, Intl.DateTimeFormat>();

/** A format takes milliseconds to build and a household has one zone: kept. */
function partsFormat(zone: string): Intl.DateTimeFormat {
  let format = formats.get(zone);
  if (format === undefined) {
    format = new Intl.DateTimeFormat('en-GB', {
      timeZone: zone,
      hourCycle: 'h23',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      second: 'numeric',
    });
    formats.set(zone, format);
  }
  return format;
}
