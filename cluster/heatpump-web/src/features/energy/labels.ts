/** How the bars of a chart are named. */
import type { TimeRange } from '../../lib/chart/range';
import type { Format } from '../../lib/format/format';
import type { Bucket, Period } from '../../lib/time/period';
import { hoursOfDay, MINUTE } from '../../lib/time/zone';
import type { Messages } from './messages';

/** "02–03", and "02–03 again" for the hour the clocks repeat; the day goes before it where there are several. */
export function barLabel({ from, to }: TimeRange, bucket: Bucket, period: Pick<Period, 'span'>, t: Messages, format: Format, zone: string): string {
  // Inside the first hour of a bucket no clock has changed yet.
  const at = from + MINUTE;
  switch (bucket) {
    case 'hour': {
      const hour = hoursOfDay(from, zone).find(({ start }) => start === from);
      const label = `${format.clock(from).slice(0, 2)}–${format.clock(to).slice(0, 2)}${hour?.repeated === true ? ` ${t.energy.again}` : ''}`;
      return period.span === 'range' ? `${format.tick(at, 'day')} ${label}` : label;
    }
    case 'day':
      return format.weekday(at);
    case 'month':
      return format.month(at);
    case 'year':
      return format.year(at);
  }
}
