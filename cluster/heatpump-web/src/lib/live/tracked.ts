/**
 * The newest value of every field of a device, each with its own time. A frame may carry only what changed (a meter sends its power every
 * second and its counter every minute), and frames may arrive late or twice: a field is replaced only by a newer one.
 */

export interface Measured<T> {
  readonly value: T;
  /** Milliseconds since the epoch. */
  readonly time: number;
}

/** The fields of F that have been reported, each with its time. */
type Tracked<F> = { readonly [K in keyof F]?: Measured<NonNullable<F[K]>> };

export interface TrackedDevice<F> {
  readonly deviceId: string;
  readonly agent: string;
  readonly location: string | null;
  /** How the time of the newest reading was known: synced, corrected or unsynced. */
  readonly clock: string;
  /** Time of the newest reading of any field. */
  readonly time: number;
  readonly fields: Tracked<F>;
}

/** One reading of a device, from the API or from the live stream: null and absent both mean not reported. */
export interface DeviceReading<F> {
  readonly deviceId: string;
  readonly agent: string;
  readonly location: string | null;
  readonly clock: string;
  readonly time: number;
  readonly values: { readonly [K in keyof F]?: F[K] | null };
}

/** Answers `previous` itself when the reading brings nothing newer, so that nothing re-renders. */
export function mergeReading<F extends object>(previous: TrackedDevice<F> | undefined, reading: DeviceReading<F>): TrackedDevice<F> {
  const fields: { [K in keyof F]?: Measured<NonNullable<F[K]>> } = { ...previous?.fields };
  let changed = previous === undefined;
  for (const key in reading.values) {
    // eslint-disable-next-line @typescript-eslint/no-unsafe-enum-assignment -- the rule takes the type parameter's keys for an enum's
    const value = reading.values[key];
    if (value === null || value === undefined) continue;
    const known = fields[key];
    if (known !== undefined && known.time >= reading.time) continue;
    fields[key] = { value, time: reading.time };
    changed = true;
  }
  const newest = previous === undefined || reading.time > previous.time;
  if (!changed && !newest) return previous;
  const origin = newest ? reading : previous;
  return { deviceId: reading.deviceId, agent: origin.agent, location: origin.location, clock: origin.clock, time: origin.time, fields };
}

/** Merges readings into a list of devices, which keeps its order (by location, then id). */
export function mergeReadings<F extends object>(devices: readonly TrackedDevice<F>[], readings: readonly DeviceReading<F>[]): readonly TrackedDevice<F>[] {
  const byId = new Map(devices.map((device) => [device.deviceId, device]));
  let changed = false;
  for (const reading of readings) {
    const previous = byId.get(reading.deviceId);
    const merged = mergeReading(previous, reading);
    if (merged === previous) continue;
    byId.set(reading.deviceId, merged);
    changed = true;
  }
  if (!changed) return devices;
  return [...byId.values()].sort(byPlace);
}

function byPlace(a: TrackedDevice<object>, b: TrackedDevice<object>): number {
  // Places with a name first: a device nobody placed yet is the exception.
  if ((a.location === null) !== (b.location === null)) return a.location === null ? 1 : -1;
  return (a.location ?? '').localeCompare(b.location ?? '') || a.deviceId.localeCompare(b.deviceId);
}
