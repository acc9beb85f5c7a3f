/** How an hour of the day is named. */
import type { Messages } from '../../i18n/en';
import type { Format } from '../../lib/format/format';
import type { LocalHour } from '../../lib/time/zone';

/** "02–03", and "02–03 again" for the hour the clocks repeat. */
export function hourLabel(hour: LocalHour, t: Messages, format: Format): string {
  const label = `${format.hour(hour.hour)}–${format.hour((hour.hour + 1) % 24)}`;
  return hour.repeated ? `${label} ${t.energy.again}` : label;
}
