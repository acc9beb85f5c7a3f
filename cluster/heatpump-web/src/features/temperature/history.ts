/** The temperatures of a day, room by room, and how they are laid on one time axis. Pure. */
import type { TemperatureSeries } from '../../api/types';
import { MINUTE } from '../../lib/time/zone';

export interface Point {
  readonly time: number;
  readonly celsius: number;
}

/** In order of time, each time once. */
export type RoomHistory = readonly Point[];

export function roomHistory(series: TemperatureSeries): RoomHistory {
  const points = series.items.flatMap((item) =>
    item.temperature_c === null ? [] : [{ time: Date.parse(item.time), celsius: item.temperature_c }],
  );
  return points.sort((a, b) => a.time - b.time);
}

/** A sensor that sends every second would fill the page's memory in a day: beyond this the oldest live points go, the next answer thins. */
const LONGEST = 4_000;

/** The history with one more reading, in its place; points before `from` go. A reading that is already there changes nothing. */
export function addPoint(history: RoomHistory, point: Point, from: number): RoomHistory {
  if (point.time < from) return history;
  let place = history.length;
  while (place > 0 && (history[place - 1]?.time ?? 0) > point.time) place -= 1;
  if (history[place - 1]?.time === point.time) return history;
  const extended = [...history.slice(0, place), point, ...history.slice(place)].filter((one) => one.time >= from);
  return extended.slice(-LONGEST);
}

/**
 * The service's answer with what the live stream brought beyond it: a reading is on the stream before it is in the database, and an answer that
 * was under way must not take it away again.
 */
export function withLive(answer: RoomHistory, known: RoomHistory, from: number): RoomHistory {
  const end = answer.at(-1)?.time ?? -Infinity;
  return known.filter(({ time }) => time > end).reduce((history, point) => addPoint(history, point, from), answer);
}

/** One moment on the shared axis: a value for each room, null where nothing is known. */
export interface Moment {
  readonly time: number;
  readonly celsius: readonly (number | null)[];
}

export interface Room {
  readonly history: RoomHistory;
  /** A pause between readings longer than this is a gap, not a line. */
  readonly maxGapMs: number;
}

const STEP = 10 * MINUTE;

/**
 * Lays rooms that report at different times on one axis from `from` to `to`: between two readings that are close enough the line is
 * straight, after the last one it holds, and in a gap there is nothing.
 */
export function moments(rooms: readonly Room[], from: number, to: number): readonly Moment[] {
  const cursors = rooms.map(() => 0);
  const result: Moment[] = [];
  const first = Math.ceil(from / STEP) * STEP;
  for (let time = first; ; time = Math.min(time + STEP, to)) {
    const celsius = rooms.map((room, index) => {
      let cursor = cursors[index] ?? 0;
      while ((room.history[cursor + 1]?.time ?? Infinity) <= time) cursor += 1;
      cursors[index] = cursor;
      return valueAt(room.history[cursor], room.history[cursor + 1], time, room.maxGapMs);
    });
    result.push({ time, celsius });
    if (time >= to) return result;
  }
}

function valueAt(before: Point | undefined, after: Point | undefined, time: number, maxGapMs: number): number | null {
  if (before === undefined || before.time > time) return null;
  if (after === undefined) return time - before.time <= maxGapMs ? before.celsius : null;
  // One step of it is shown, or a reading on its own between two gaps would be lost.
  if (after.time - before.time > maxGapMs) return time - before.time < STEP ? before.celsius : null;
  const share = (time - before.time) / (after.time - before.time);
  return before.celsius + share * (after.celsius - before.celsius);
}

export function extremes(histories: readonly RoomHistory[]): { low: number; high: number } | null {
  let low = Infinity;
  let high = -Infinity;
  for (const history of histories) {
    for (const { celsius } of history) {
      low = Math.min(low, celsius);
      high = Math.max(high, celsius);
    }
  }
  return low > high ? null : { low, high };
}
