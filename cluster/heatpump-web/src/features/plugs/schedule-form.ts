/** What a schedule's form holds, and whether it can be saved. Pure. The settings API checks the same and has the last word. */
import type { NewSchedule, Schedule } from '../../api/types';

export interface ScheduleDraft {
  /** 1 Monday to 7 Sunday. */
  readonly weekdays: readonly number[];
  readonly time: string;
  readonly on: boolean;
}

export type ScheduleFault = 'weekdays' | 'local_time';

const WEEK = [1, 2, 3, 4, 5, 6, 7] as const;

export function draftOf(schedule: Schedule | null): ScheduleDraft {
  if (schedule === null) return { weekdays: WEEK, time: '07:00', on: true };
  return { weekdays: schedule.weekdays, time: schedule.local_time, on: schedule.on };
}

export function toggled(weekdays: readonly number[], day: number): readonly number[] {
  return weekdays.includes(day) ? weekdays.filter((one) => one !== day) : [...weekdays, day].sort((a, b) => a - b);
}

export function faultsOf({ weekdays, time }: ScheduleDraft): readonly ScheduleFault[] {
  const faults: ScheduleFault[] = [];
  if (weekdays.length === 0) faults.push('weekdays');
  if (!/^([01]\d|2[0-3]):[0-5]\d$/.test(time)) faults.push('local_time');
  return faults;
}

export function bodyOf({ weekdays, time, on }: ScheduleDraft): NewSchedule {
  return { weekdays: [...weekdays], local_time: time, on };
}

/** "Mon-Fri" as a list of names; the caller says "every day" for all seven. */
export function dayNames(weekdays: readonly number[], names: readonly string[], everyDay: string): string {
  const days = [...weekdays].sort((a, b) => a - b);
  if (days.length === 7) return everyDay;
  const groups: number[][] = [];
  for (const day of days) {
    const last = groups.at(-1);
    if (last?.at(-1) === day - 1) last.push(day);
    else groups.push([day]);
  }
  const name = (day: number | undefined) => names[(day ?? 1) - 1] ?? '';
  return groups.map((group) => (group.length > 2 ? `${name(group[0])}\u2013${name(group.at(-1))}` : group.map(name).join(', '))).join(', ');
}
