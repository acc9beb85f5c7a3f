/**
 * What each setting of the pump may be, and what somebody typed says about it. The settings API holds the same limits and has the last word
 * (docs/API.md); here they are explained and checked before anything is sent. Pure.
 */
import type { HeatpumpSettings } from '../../api/types';

export type SettingName = keyof HeatpumpSettings;

export interface Limits {
  readonly low: number;
  readonly high: number;
  readonly unit: string;
}

/** In the order of the form. All are whole numbers. */
export const LIMITS = {
  indoor_target_c: { low: 15, high: 30, unit: '°C' },
  mode: { low: 0, high: 4, unit: '' },
  curve: { low: 10, high: 70, unit: '°C' },
  curve_min: { low: 10, high: 50, unit: '°C' },
  curve_max: { low: 20, high: 75, unit: '°C' },
  curve_plus_5: { low: -10, high: 10, unit: '°C' },
  curve_zero: { low: -10, high: 10, unit: '°C' },
  curve_minus_5: { low: -10, high: 10, unit: '°C' },
  heat_stop_c: { low: 0, high: 40, unit: '°C' },
  integral: { low: 1, high: 200, unit: '°min' },
} as const satisfies Record<SettingName, Limits>;

export const SETTING_NAMES = Object.keys(LIMITS) as readonly SettingName[];

/** What was typed, by setting; a setting nobody touched is not in it. */
export type Draft = Readonly<Partial<Record<SettingName, string>>>;

export type Fault = { readonly kind: 'number' } | { readonly kind: 'limits'; readonly low: number; readonly high: number } | { readonly kind: 'minAboveMax' };

export type Checked =
  | { readonly faults: Readonly<Partial<Record<SettingName, Fault>>>; readonly changes: null }
  | { readonly faults: null; readonly changes: Partial<Record<SettingName, number>> };

/** The whole number that was typed, with either minus and spaces around it; null for anything else. */
export function wholeNumber(text: string): number | null {
  const plain = text.trim().replace(/^[\u2212\u2013]/, '-');
  return /^[-+]?\d{1,6}$/.test(plain) ? Number(plain) : null;
}

/** `current` is what holds without the draft: what is wanted where a change is open, else what the pump reported. */
export function check(draft: Draft, current: HeatpumpSettings): Checked {
  const faults: Partial<Record<SettingName, Fault>> = {};
  const changes: Partial<Record<SettingName, number>> = {};
  for (const name of SETTING_NAMES) {
    const text = draft[name];
    if (text === undefined || text.trim() === '') continue;
    const value = wholeNumber(text);
    const { low, high } = LIMITS[name];
    if (value === null) faults[name] = { kind: 'number' };
    else if (value < low || value > high) faults[name] = { kind: 'limits', low, high };
    else if (value !== current[name]) changes[name] = value;
  }
  const min = changes.curve_min ?? current.curve_min;
  const max = changes.curve_max ?? current.curve_max;
  if (min !== null && max !== null && min > max && Object.keys(faults).length === 0) {
    faults[changes.curve_max === undefined ? 'curve_min' : 'curve_max'] = { kind: 'minAboveMax' };
  }
  return Object.keys(faults).length > 0 ? { faults, changes: null } : { faults: null, changes };
}

/** One step up or down from what is typed, or from `from` where nothing is; stops at the limits. */
export function stepped(name: SettingName, text: string | undefined, from: number | null, by: 1 | -1): string {
  const { low, high } = LIMITS[name];
  const typed = text === undefined ? null : wholeNumber(text);
  const start = typed ?? from;
  if (start === null) return String(by > 0 ? low : high);
  return String(Math.min(Math.max(start + by, low), high));
}

/** A draft out of storage, which may hold anything. */
export function draftOf(stored: unknown): Draft {
  if (typeof stored !== 'object' || stored === null) return {};
  const draft: Partial<Record<SettingName, string>> = {};
  for (const name of SETTING_NAMES) {
    const text: unknown = (stored as Record<string, unknown>)[name];
    if (typeof text === 'string' && text.length <= 16) draft[name] = text;
  }
  return draft;
}
