import { describe, expect, it } from 'vitest';
import type { EnergyBucket } from '../../api/types';
import { bucketsOf, parseDate, periodOf } from '../../lib/time/period';
import { HOUR } from '../../lib/time/zone';
import { emptyStretches, energyBars, totalsOf } from './bars';

const ZONE = 'Europe/Stockholm';

function day(text: string) {
  const date = parseDate(text);
  if (date === null) throw new Error(text);
  return bucketsOf(periodOf('day', date), ZONE);
}

/** Kilowatt-hours by index; null is a bucket the API has no row for. */
function items(buckets: readonly { from: number; to: number }[], kwh: (index: number) => number | null, more: Partial<EnergyBucket> = {}): EnergyBucket[] {
  return buckets.flatMap(({ from, to }, index) => {
    const energy = kwh(index);
    if (energy === null) return [];
    return [
      {
        start: new Date(from).toISOString(),
        end: new Date(to).toISOString(),
        energy_kwh: energy,
        export_kwh: 0,
        average_power_w: null,
        average_power_l1_w: null,
        average_power_l2_w: null,
        average_power_l3_w: null,
        average_export_power_w: null,
        cost: null,
        currency: null,
        count: 60,
        estimated: false,
        ...more,
      },
    ];
  });
}

const LATER = Date.parse('2027-01-01T00:00:00Z');

describe('energyBars', () => {
  it('puts the same hour of the clock side by side where one day has lost an hour', () => {
    const sunday = day('2026-03-29');
    const saturday = day('2026-03-28');
    const other = { buckets: saturday, items: items(saturday, (index) => index), bucket: 'hour' as const, zone: ZONE };
    const bars = energyBars(sunday, items(sunday, (index) => index), LATER, other);
    expect(bars).toHaveLength(23);
    // 00 01 03 04: the hour from 02 is not there, so the third bar faces the fourth.
    expect(bars.slice(0, 4).map((bar) => bar.other?.usedKwh)).toEqual([0, 1, 3, 4]);
  });

  it('shows both of the hours the clock repeats beside the one of the other day', () => {
    const sunday = day('2026-10-25');
    const saturday = day('2026-10-24');
    const other = { buckets: saturday, items: items(saturday, (index) => index), bucket: 'hour' as const, zone: ZONE };
    const bars = energyBars(sunday, [], LATER, other);
    expect(bars).toHaveLength(25);
    expect(bars.slice(1, 5).map((bar) => bar.other?.usedKwh)).toEqual([1, 2, 2, 3]);
  });

  it('knows what is running and what is to come', () => {
    const buckets = day('2026-01-10');
    const now = (buckets[10]?.from ?? 0) + HOUR / 2;
    const bars = energyBars(buckets, [], now, null);
    expect(bars.filter((bar) => bar.running).map((bar) => bars.indexOf(bar))).toEqual([10]);
    expect(bars.filter((bar) => bar.future)).toHaveLength(13);
  });
});

describe('totalsOf', () => {
  const buckets = day('2026-01-10');
  const before = day('2026-01-09');

  it('compares only what is over, so that a day that has just begun is no saving', () => {
    const other = { buckets: before, items: items(before, () => 2), bucket: 'hour' as const, zone: ZONE };
    const now = (buckets[10]?.from ?? 0) + 1;
    const bars = energyBars(buckets, items(buckets, (index) => (index <= 10 ? 3 : null)), now, other);
    expect(totalsOf(bars, other.items)).toMatchObject({ usedKwh: 33, otherKwh: 48, change: 0.5 });
  });

  it('has a cost only when every kilowatt-hour has a price', () => {
    const priced = energyBars(buckets, items(buckets, () => 1, { cost: 2, currency: 'SEK' }), LATER, null);
    expect(totalsOf(priced, null).cost).toEqual({ amount: 48, currency: 'SEK' });
    const [first, ...rest] = priced;
    if (first === undefined) throw new Error('no bar');
    expect(totalsOf([{ ...first, cost: null, currency: null }, ...rest], null).cost).toBeNull();
    expect(totalsOf([{ ...first, currency: 'EUR' }, ...rest], null).cost).toBeNull();
  });

  it('has nothing to say of nothing', () => {
    expect(totalsOf(energyBars(buckets, [], LATER, null), null)).toEqual({ usedKwh: null, soldKwh: null, cost: null, otherKwh: null, change: null });
  });
});

it('joins empty buckets of the past into stretches, and leaves out what came before the first count', () => {
  const buckets = day('2026-01-10');
  const bars = energyBars(buckets, items(buckets, (index) => ([3, 4, 7].includes(index) ? 1 : null)), (buckets[9]?.from ?? 0) + 1, null);
  expect(emptyStretches(bars)).toEqual([
    { from: buckets[5]?.from, to: buckets[6]?.to },
    { from: buckets[8]?.from, to: buckets[8]?.to },
  ]);
});
