/** A setting and its value in words. */
import type { HeatpumpSettings } from '../../api/types';
import { type Format, NOTHING } from '../../lib/format/format';
import { LIMITS, SETTING_NAMES } from './limits';
import type { Messages } from './messages';

export function settingValue(name: keyof HeatpumpSettings, value: number | null, t: Messages, format: Format): string {
  if (value === null) return NOTHING;
  // A mode this page does not know is shown as its number rather than hidden.
  if (name === 'mode') return t.settings.modes[value] ?? String(value);
  return `${format.number(value)} ${LIMITS[name].unit}`;
}

/** What a command asked for: "Wanted indoors 22 °C, curve 40 °C". */
export function settingsText(asked: Readonly<Record<string, unknown>>, t: Messages, format: Format): string {
  return SETTING_NAMES.flatMap((name) => {
    const value = asked[name];
    return typeof value === 'number' ? [`${t.settings.fields[name].label} ${settingValue(name, value, t, format)}`] : [];
  }).join(', ');
}
