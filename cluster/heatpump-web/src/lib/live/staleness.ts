/** When a value is too old to be taken for the present. A stale value is still shown, and says so. */
import { HOUR, MINUTE, SECOND } from '../time/zone';
import type { Stream } from './protocol';

/** A meter sends every 1 to 10 s: three of its longest intervals. */
const ENERGY_MS = 30 * SECOND;
/** The heat pump sends every 30 s: three intervals and a little. */
const HEATPUMP_MS = 100 * SECOND;
/** A plug sends every 5 min unless something changes: two intervals and a little. */
const PLUG_MS = 11 * MINUTE;
/** A battery sensor wakes every 2 h and is stale after one and a half periods; this holds where it has not said its period. */
const TEMPERATURE_MS = 3 * HOUR;
/** A sensor may claim any period; under a minute the network's own delays would make it flicker. */
const SHORTEST_MS = MINUTE;

/** How old a value of the stream may be before it is stale. */
export function staleAfter(stream: Exclude<Stream, 'events'>, wakePeriodSeconds: number | null = null): number {
  switch (stream) {
    case 'energy':
      return ENERGY_MS;
    case 'heatpump':
      return HEATPUMP_MS;
    case 'plug':
      return PLUG_MS;
    case 'temperature':
      return wakePeriodSeconds === null || wakePeriodSeconds <= 0 ? TEMPERATURE_MS : Math.max(1.5 * wakePeriodSeconds * SECOND, SHORTEST_MS);
  }
}

export function isStale(time: number, now: number, limitMs: number): boolean {
  return now - time > limitMs;
}
