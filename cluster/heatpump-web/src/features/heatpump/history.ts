/** What the charts of the heat pump draw: stretches of time in which something ran, lines with holes, and stretches nobody measured. Pure. */
import type { HeatpumpDay, HeatpumpPoint } from '../../api/types';
import type { PathPoint } from '../../lib/chart/path';
import type { TimeRange } from '../../lib/chart/range';

export const BANDS = ['compressor', 'hotWater', 'auxiliary'] as const;
export type BandName = (typeof BANDS)[number];

export const TEMPERATURES = ['outdoor_c', 'indoor_c', 'supply_c', 'return_c', 'hot_water_c', 'brine_in_c', 'brine_out_c'] as const;
export type TemperatureName = (typeof TEMPERATURES)[number];

/** A stretch in which a part ran, and for how much of it: 1 is all the time. */
export interface Band extends TimeRange {
  readonly share: number;
}

/** A stretch between two buckets is a gap when at least this many are missing: one that is late or lost alone is not. */
const MISSING_BUCKETS = 2;
/** Devices report at most every few minutes whatever the resolution: a shorter pause is none. */
const SHORTEST_GAP_MS = 5 * 60_000;

export function shareOf(point: HeatpumpPoint, band: BandName): number | null {
  switch (band) {
    case 'compressor':
      return point.compressor_share;
    case 'hotWater':
      return point.hot_water_share;
    case 'auxiliary': {
      const known = [point.aux_3kw_share, point.aux_6kw_share].filter((share) => share !== null);
      // The two heaters may take turns; at least as long as the longer of them something electric ran.
      return known.length === 0 ? null : Math.max(...known);
    }
  }
}

/** Buckets in order of time; neighbours of the same share (to a tenth) are one band. */
export function bandsOf(points: readonly HeatpumpPoint[], band: BandName, resolutionMs: number): readonly Band[] {
  const bands: { from: number; to: number; share: number }[] = [];
  for (const point of points) {
    const exact = shareOf(point, band) ?? 0;
    // What ran at all is seen.
    const share = exact > 0 ? Math.max(Math.round(exact * 10) / 10, 0.1) : 0;
    if (share === 0) continue;
    const from = Date.parse(point.time);
    const last = bands.at(-1);
    if (last?.share === share && last.to === from) last.to = from + resolutionMs;
    else bands.push({ from, to: from + resolutionMs, share });
  }
  return bands;
}

/** Stretches without a bucket, up to the last bucket there is: what is after that has not come yet, or is the device's own silence. */
export function silences(points: readonly HeatpumpPoint[], resolutionMs: number): readonly TimeRange[] {
  const shortest = Math.max(MISSING_BUCKETS * resolutionMs, SHORTEST_GAP_MS);
  const gaps: TimeRange[] = [];
  let end: number | null = null;
  for (const point of points) {
    const from = Date.parse(point.time);
    if (end !== null && from - end >= shortest) gaps.push({ from: end, to: from });
    end = from + resolutionMs;
  }
  return gaps;
}

/** A line of one value: at the middle of each bucket, broken over silences. */
export function lineOf(points: readonly HeatpumpPoint[], value: (point: HeatpumpPoint) => number | null, resolutionMs: number): readonly PathPoint[] {
  const gaps = silences(points, resolutionMs);
  let next = 0;
  return points.flatMap((point): PathPoint[] => {
    const from = Date.parse(point.time);
    const own = { time: from + resolutionMs / 2, value: value(point) };
    const gap = gaps[next];
    if (gap?.to !== from) return [own];
    next += 1;
    return [{ time: gap.from, value: null }, own];
  });
}

export function within(points: readonly HeatpumpPoint[], view: TimeRange): readonly HeatpumpPoint[] {
  return points.filter((point) => {
    const time = Date.parse(point.time);
    return time >= view.from && time < view.to;
  });
}

/** Hours a part ran in the points' buckets. */
export function hoursOf(points: readonly HeatpumpPoint[], band: BandName, resolutionMs: number): number {
  return points.reduce((hours, point) => hours + (shareOf(point, band) ?? 0) * (resolutionMs / 3_600_000), 0);
}

/** Least and most of several values, over what was reported; null where nothing was. */
export function extremesOf(points: readonly HeatpumpPoint[], values: readonly ((point: HeatpumpPoint) => number | null)[]): { low: number; high: number } | null {
  let low = Infinity;
  let high = -Infinity;
  for (const point of points) {
    for (const value of values) {
      const known = value(point);
      if (known === null) continue;
      low = Math.min(low, known);
      high = Math.max(high, known);
    }
  }
  return low > high ? null : { low, high };
}

/** Both heaters together, of one day. */
export function auxiliaryHours(day: HeatpumpDay): number | null {
  const { aux_3kw_hours: three, aux_6kw_hours: six } = day;
  return three === null && six === null ? null : (three ?? 0) + (six ?? 0);
}
