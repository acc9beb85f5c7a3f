/**
 * Carries what the counters gained since the last answer into the periods that are shown: the hour, day, month or year that holds it. Pure. An
 * estimate like the one of today, replaced by the next answer.
 */
import type { EnergySeries } from '../../api/types';
import type { EnergyToday, Gain } from './today';

/** By the start of the quarter hour in milliseconds, as EnergyToday keeps them. */
export type Gains = ReadonlyMap<number, Gain>;

export function gainsBetween(before: EnergyToday, after: EnergyToday): Gains {
  const gains = new Map<number, Gain>();
  for (const [quarter, { kwh, exportKwh }] of Object.entries(after.gained)) {
    const had = before.gained[Number(quarter)] ?? { kwh: 0, exportKwh: 0 };
    if (kwh > had.kwh || exportKwh > had.exportKwh) gains.set(Number(quarter), { kwh: kwh - had.kwh, exportKwh: exportKwh - had.exportKwh });
  }
  return gains;
}

/** The series with the gains in their buckets; null where a bucket has begun that the series does not know: then it is asked again. */
export function withGains(series: EnergySeries, gains: Gains): EnergySeries | null {
  let items = series.items;
  for (const [quarter, { kwh, exportKwh }] of gains) {
    if (quarter < Date.parse(series.from) || quarter >= Date.parse(series.to)) continue;
    const place = items.findIndex(({ start, end }) => quarter >= Date.parse(start) && quarter < Date.parse(end));
    const item = items[place];
    if (item === undefined) return null;
    items = items.with(place, { ...item, energy_kwh: (item.energy_kwh ?? 0) + kwh, ...(exportKwh > 0 && { export_kwh: (item.export_kwh ?? 0) + exportKwh }) });
  }
  return items === series.items ? series : { ...series, items };
}
