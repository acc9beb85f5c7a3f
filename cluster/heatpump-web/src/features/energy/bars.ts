/** The bars of a period: what was counted in each bucket, beside what was counted in the same bucket of another period. Pure. */
import type { EnergyBucket } from '../../api/types';
import type { TimeRange } from '../../lib/chart/range';
import { sumKnown } from '../../lib/sum';
import type { Bucket } from '../../lib/time/period';
import { hoursOfDay, localDate } from '../../lib/time/zone';

export interface EnergyBar extends TimeRange {
  /** Null: nothing was counted, or the bucket is still to come. */
  readonly usedKwh: number | null;
  readonly soldKwh: number | null;
  readonly cost: number | null;
  readonly currency: string | null;
  /** A gain spans more than 15 minutes without a reading. */
  readonly estimated: boolean;
  /** Now is in it: what it holds is not all of it. */
  readonly running: boolean;
  /** Now is before it. */
  readonly future: boolean;
  /** The same hour, day or month of the period it is compared with. */
  readonly other: { readonly from: number; readonly usedKwh: number | null } | null;
}

export interface Compared {
  readonly buckets: readonly TimeRange[];
  readonly items: readonly EnergyBucket[];
}

export function energyBars(
  buckets: readonly TimeRange[],
  items: readonly EnergyBucket[],
  now: number,
  other: (Compared & { readonly bucket: Bucket; readonly zone: string }) | null,
): readonly EnergyBar[] {
  const byStart = new Map(items.map((item) => [Date.parse(item.start), item]));
  const others = other === null ? null : otherByKey(other);
  return buckets.map((bucket, index): EnergyBar => {
    const item = byStart.get(bucket.from);
    const key = other?.bucket === 'hour' ? hourKey(buckets, bucket, other.zone) : String(index);
    return {
      ...bucket,
      usedKwh: item?.energy_kwh ?? null,
      soldKwh: item?.export_kwh ?? null,
      cost: item?.cost ?? null,
      currency: item?.currency ?? null,
      estimated: item?.estimated ?? false,
      running: now >= bucket.from && now < bucket.to,
      future: now < bucket.from,
      other: others?.get(key) ?? null,
    };
  });
}

function otherByKey({ buckets, items, bucket, zone }: Compared & { readonly bucket: Bucket; readonly zone: string }) {
  const byStart = new Map(items.map((item) => [Date.parse(item.start), item]));
  const result = new Map<string, { from: number; usedKwh: number | null }>();
  for (const [index, one] of buckets.entries()) {
    const key = bucket === 'hour' ? hourKey(buckets, one, zone) : String(index);
    // Of an hour the clock shows twice the first is taken: the other day has it once.
    if (!result.has(key)) result.set(key, { from: one.from, usedKwh: byStart.get(one.from)?.energy_kwh ?? null });
  }
  return result;
}

/** Hours face each other by what the clock shows, not by how many came before: a day that changes its clock has 23 or 25 of them. */
function hourKey(buckets: readonly TimeRange[], bucket: TimeRange, zone: string): string {
  const days = (instant: number) => {
    const { year, month, day } = localDate(instant, zone);
    return Date.UTC(year, month - 1, day) / 86_400_000;
  };
  const hour = hoursOfDay(bucket.from, zone).find(({ start }) => start === bucket.from)?.hour ?? 0;
  return `${days(bucket.from) - days(buckets[0]?.from ?? bucket.from)} ${hour}`;
}

export interface EnergyTotals {
  readonly usedKwh: number | null;
  readonly soldKwh: number | null;
  /** Null where the energy of any bucket has no price, or the prices are in several currencies: a part of a cost is no cost. */
  readonly cost: { readonly amount: number; readonly currency: string } | null;
  /** Of the whole period it is compared with. */
  readonly otherKwh: number | null;
  /** By how much of the other period's this period used more, over the buckets that are over in both; null where nothing can be compared. */
  readonly change: number | null;
}

export function totalsOf(bars: readonly EnergyBar[], otherItems: readonly EnergyBucket[] | null): EnergyTotals {
  const currencies = new Set(bars.flatMap((bar) => (bar.currency === null ? [] : [bar.currency])));
  const priced = bars.every((bar) => (bar.usedKwh ?? 0) === 0 || bar.cost !== null);
  const [currency] = currencies;
  const amount = sumKnown(bars.map((bar) => bar.cost));
  const over = bars.filter((bar) => !bar.running && !bar.future && bar.usedKwh !== null && bar.other !== null && bar.other.usedKwh !== null);
  const own = sumKnown(over.map((bar) => bar.usedKwh));
  const others = sumKnown(over.map((bar) => bar.other?.usedKwh ?? null));
  return {
    usedKwh: sumKnown(bars.map((bar) => bar.usedKwh)),
    soldKwh: sumKnown(bars.map((bar) => bar.soldKwh)),
    cost: priced && amount !== null && currency !== undefined && currencies.size === 1 ? { amount, currency } : null,
    otherKwh: otherItems === null ? null : sumKnown(otherItems.map((item) => item.energy_kwh)),
    change: own === null || others === null || others === 0 ? null : own / others - 1,
  };
}

/**
 * Stretches of the past in which nothing was counted, each once. What lies before the first count of all is no gap: the house was not
 * measured yet.
 */
export function emptyStretches(bars: readonly EnergyBar[]): readonly TimeRange[] {
  const first = bars.findIndex((bar) => bar.usedKwh !== null);
  const gaps: { from: number; to: number }[] = [];
  if (first < 0) return gaps;
  for (const bar of bars.slice(first)) {
    if (bar.usedKwh !== null || bar.running || bar.future) continue;
    const last = gaps.at(-1);
    if (last?.to === bar.from) last.to = bar.to;
    else gaps.push({ from: bar.from, to: bar.to });
  }
  return gaps;
}
