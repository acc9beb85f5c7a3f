/**
 * Numbers and times as a person reads them: in the browser's language, in the household's time zone. A value that is not there is an en
 * dash, never 0 and never an empty place.
 */
import type { TickUnit } from '../chart/time-ticks';
import { DAY, HOUR, MINUTE, SECOND } from '../time/zone';

export const NOTHING = '–';

/** Below this the unit is watts; from here kilowatts would lose what a person compares: 9,999 W and 10,050 W are told apart. */
const WATTS_UNTIL = 100_000;

const DATES = {
  weekday: { weekday: 'short', day: 'numeric' },
  day: { day: 'numeric', month: 'short' },
  month: { month: 'short' },
  longMonth: { month: 'long', year: 'numeric' },
  year: { year: 'numeric' },
  longDate: { weekday: 'short', day: 'numeric', month: 'short', year: 'numeric' },
  weekdayMonth: { weekday: 'short', day: 'numeric', month: 'short' },
  date: { day: 'numeric', month: 'short', year: 'numeric' },
  span: { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit', hourCycle: 'h23' },
} as const satisfies Record<string, Intl.DateTimeFormatOptions>;

export class Format {
  readonly #locale: string;
  readonly #zone: string;
  readonly #dates = new Map<keyof typeof DATES, Intl.DateTimeFormat>();
  readonly #numbers = new Map<number, Intl.NumberFormat>();
  readonly #clock: Intl.DateTimeFormat;
  readonly #moment: Intl.DateTimeFormat;
  readonly #date: Intl.DateTimeFormat;

  constructor(locale: string, zone: string) {
    this.#locale = locale;
    this.#zone = zone;
    // Hours are 00 to 23 everywhere on the page: the charts have no room for am and pm.
    const clock = { timeZone: zone, hour: '2-digit', minute: '2-digit', hourCycle: 'h23' } as const;
    this.#clock = new Intl.DateTimeFormat(locale, clock);
    this.#moment = new Intl.DateTimeFormat(locale, { ...clock, day: 'numeric', month: 'short', second: '2-digit', timeZoneName: 'short' });
    this.#date = new Intl.DateTimeFormat(locale, { timeZone: zone, weekday: 'long', day: 'numeric', month: 'long' });
  }

  get locale(): string {
    return this.#locale;
  }

  get zone(): string {
    return this.#zone;
  }

  number(value: number | null | undefined, digits = 0): string {
    if (value === null || value === undefined || !Number.isFinite(value)) return NOTHING;
    let format = this.#numbers.get(digits);
    if (format === undefined) {
      format = new Intl.NumberFormat(this.#locale, { minimumFractionDigits: digits, maximumFractionDigits: digits, signDisplay: 'negative' });
      this.#numbers.set(digits, format);
    }
    // The true minus, which English formats leave out: a hyphen before a figure is easily overlooked.
    return format.format(value).replace(/^-/, '\u2212');
  }

  /** Value and unit apart, so that the unit can be set smaller. */
  power(watts: number | null | undefined): { value: string; unit: string } {
    if (watts === null || watts === undefined) return { value: NOTHING, unit: 'W' };
    if (Math.abs(watts) < WATTS_UNTIL) return { value: this.number(watts), unit: 'W' };
    return { value: this.number(watts / 1000, 1), unit: 'kW' };
  }

  /** Two decimals up to 10 kWh, then one: about three figures that mean something. */
  energy(kwh: number | null | undefined): { value: string; unit: string } {
    return { value: this.number(kwh, kwh !== null && kwh !== undefined && Math.abs(kwh) >= 10 ? 1 : 2), unit: 'kWh' };
  }

  /** Hours and minutes. */
  clock(instant: number): string {
    return this.#clock.format(instant);
  }

  /** A moment with day, seconds and zone, for titles. */
  moment(instant: number): string {
    return this.#moment.format(instant);
  }

  date(instant: number): string {
    return this.#date.format(instant);
  }

  /** A mark of a time axis: as much of the date as its unit needs. */
  tick(instant: number, unit: TickUnit): string {
    switch (unit) {
      case 'minute':
        return this.clock(instant);
      case 'hour': {
        const clock = this.clock(instant);
        // Midnight is where a new day begins: the day is worth more there than the hour.
        return clock === '00:00' ? this.#named('weekday').format(instant) : clock;
      }
      case 'day':
        return this.#named('day').format(instant);
      case 'month':
        return this.#named('month').format(instant);
      case 'year':
        return this.#named('year').format(instant);
    }
  }

  /** From one moment to another; the day is said once when both are on it. */
  span(from: number, to: number): string {
    return this.#named('span').formatRange(from, to);
  }

  /** From one day to another: 23–29 Nov 2026. */
  days(first: number, last: number): string {
    return this.#named('date').formatRange(first, last);
  }

  /** A day with its weekday and year: Wed 25 Nov 2026. */
  longDate(instant: number): string {
    return this.#named('longDate').format(instant);
  }

  /** A day of a week or month: Wed 25 Nov. */
  weekday(instant: number): string {
    return this.#named('weekdayMonth').format(instant);
  }

  /** Month and year: November 2026. */
  month(instant: number): string {
    return this.#named('longMonth').format(instant);
  }

  year(instant: number): string {
    return this.#named('year').format(instant);
  }

  /** A share more or less, with its sign: +12 %. */
  change(share: number): string {
    const percent = new Intl.NumberFormat(this.#locale, { style: 'percent', maximumFractionDigits: 0, signDisplay: 'exceptZero' });
    return percent.format(share).replace(/^-/, '\u2212');
  }

  money(amount: number, currency: string): string {
    return new Intl.NumberFormat(this.#locale, { style: 'currency', currency }).format(amount).replace(/^-/, '\u2212');
  }

  /** Built when first asked for: a format takes milliseconds, and no page needs all of them. */
  #named(name: keyof typeof DATES): Intl.DateTimeFormat {
    let format = this.#dates.get(name);
    if (format === undefined) {
      format = new Intl.DateTimeFormat(this.#locale, { ...DATES[name], timeZone: this.#zone });
      this.#dates.set(name, format);
    }
    return format;
  }

  /** The two figures of an hour, as the axis shows it. */
  hour(hour: number): string {
    return String(hour).padStart(2, '0');
  }
}

export type Age =
  | { readonly unit: 'now' }
  | { readonly unit: 'second' | 'minute' | 'hour' | 'day'; readonly count: number };

/** How long ago, in the one unit that matters. A time slightly ahead of this clock is now, not negative. */
export function ageOf(instant: number, now: number): Age {
  const age = now - instant;
  if (age < 2 * SECOND) return { unit: 'now' };
  if (age < MINUTE) return { unit: 'second', count: Math.floor(age / SECOND) };
  if (age < HOUR) return { unit: 'minute', count: Math.floor(age / MINUTE) };
  if (age < 2 * DAY) return { unit: 'hour', count: Math.floor(age / HOUR) };
  return { unit: 'day', count: Math.floor(age / DAY) };
}
