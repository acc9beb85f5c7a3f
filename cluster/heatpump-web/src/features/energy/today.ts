/**
 * Today's energy by hour, kept current between answers of the API by the meters' own counters, after the same rule the database follows.
 * Pure. What it adds is an estimate until the next answer replaces it; it never changes an hour the server closed before `asOf`.
 */
import type { EnergySeries } from '../../api/types';
import { numberOf, stringOf } from '../../lib/json';
import type { LiveRecord } from '../../lib/live/protocol';
import { sumKnown } from '../../lib/sum';
import { hoursOfDay, type LocalHour, MINUTE } from '../../lib/time/zone';
import type { EnergyBar } from './bars';

/** Every zone's hours are whole numbers of these, and the database counts in them as well. */
const QUARTER = 15 * MINUTE;

interface Counter {
  readonly meterId: string | null;
  /** The highest value counted so far; a small step back is not a reset and adds nothing until it is passed. */
  readonly wh: number | null;
  readonly exportWh: number | null;
  /** Of the newest reading taken in. */
  readonly time: number;
}

export interface EnergyToday {
  readonly series: EnergySeries;
  /** Everything up to here is in the series. */
  readonly asOf: number;
  /** By device. */
  readonly counters: Readonly<Record<string, Counter>>;
  /** Gained since `asOf`, by the start of the quarter hour in milliseconds. */
  readonly gained: Readonly<Record<number, Gain>>;
}

export interface Gain {
  readonly kwh: number;
  readonly exportKwh: number;
}

/** A fresh answer: what was gained since the one before is in it, the counters stay where they are. */
export function energyToday(series: EnergySeries, asOf: number, earlier: EnergyToday | undefined): EnergyToday {
  return { series, asOf, counters: earlier?.counters ?? {}, gained: {} };
}

export function addRecords(today: EnergyToday, records: readonly LiveRecord[]): EnergyToday {
  let result = today;
  for (const record of records) {
    if (record.stream === 'energy' && record.clock !== 'unsynced' && today.series.devices.includes(record.deviceId)) {
      result = addRecord(result, record);
    }
  }
  return result;
}

function addRecord(today: EnergyToday, record: LiveRecord): EnergyToday {
  const wh = numberOf(record.reading['energy_wh']);
  const exportWh = numberOf(record.reading['export_energy_wh']);
  if (wh === null && exportWh === null) return today;
  const meterId = stringOf(record.reading['meter_id']);
  const known = today.counters[record.deviceId];
  if (known !== undefined && record.time <= known.time) return today;
  // Another meter behind the same sensor starts its own count.
  const previous = known?.meterId === meterId ? known : undefined;
  const used = gain(previous?.wh ?? null, wh);
  const sold = gain(previous?.exportWh ?? null, exportWh);
  const counters = {
    ...today.counters,
    [record.deviceId]: { meterId, wh: used.counter, exportWh: sold.counter, time: record.time },
  };
  // Already in the answer: only the counter moves on.
  if (record.time <= today.asOf || (used.gainWh === 0 && sold.gainWh === 0)) return { ...today, counters };
  const from = Date.parse(today.series.from);
  if (record.time < from || record.time >= Date.parse(today.series.to)) return { ...today, counters };
  const quarter = Math.floor(record.time / QUARTER) * QUARTER;
  const before = today.gained[quarter] ?? { kwh: 0, exportKwh: 0 };
  const after = { kwh: before.kwh + used.gainWh / 1000, exportKwh: before.exportKwh + sold.gainWh / 1000 };
  return { ...today, counters, gained: { ...today.gained, [quarter]: after } };
}

/** The energy rule (docs/ARCHITECTURE.md): a rise counts, under a tenth of the last value is a reset, any other fall is noise. */
export function gain(previous: number | null, next: number | null): { gainWh: number; counter: number | null } {
  if (next === null) return { gainWh: 0, counter: previous };
  if (previous === null) return { gainWh: 0, counter: next };
  if (next >= previous) return { gainWh: next - previous, counter: next };
  if (next < previous / 10) return { gainWh: next, counter: next };
  return { gainWh: 0, counter: previous };
}

export interface EnergyHour extends LocalHour {
  /** Null: nothing was counted, or the hour is still to come. */
  readonly usedKwh: number | null;
  readonly soldKwh: number | null;
  readonly estimated: boolean;
  readonly running: boolean;
}

/** Every hour of the local day that holds `now`, with what was counted in it. */
export function energyHours(today: EnergyToday, now: number, zone: string): readonly EnergyHour[] {
  return hoursOfDay(now, zone).map((hour) => {
    const inside = (instant: number) => instant >= hour.start && instant < hour.end;
    const items = today.series.items.filter((item) => inside(Date.parse(item.start)));
    const gains = Object.entries(today.gained).filter(([start]) => inside(Number(start)));
    const used = [...items.map((item) => item.energy_kwh), ...gains.map(([, { kwh }]) => kwh)];
    const sold = [...items.map((item) => item.export_kwh), ...gains.map(([, { exportKwh }]) => exportKwh)];
    return {
      ...hour,
      usedKwh: sumKnown(used),
      soldKwh: sumKnown(sold),
      estimated: items.some((item) => item.estimated),
      running: inside(now),
    };
  });
}

/** The hours as every energy chart draws them. What today costs is on the page Energy: prices are the server's. */
export function energyBarsOfToday(today: EnergyToday, now: number, zone: string): readonly EnergyBar[] {
  return energyHours(today, now, zone).map(({ start, end, usedKwh, soldKwh, estimated, running }) => ({
    from: start,
    to: end,
    usedKwh,
    soldKwh,
    estimated,
    running,
    future: now < start,
    cost: null,
    currency: null,
    other: null,
  }));
}
