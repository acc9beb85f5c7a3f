/**
 * The server's clock as seen from here. Ages and "today" are compared with times the house stamped, so a phone whose clock is wrong must
 * not call every reading stale. Never sets anything; only estimates.
 */
import { SECOND } from './zone';

/** The Date header has whole seconds and arrives late: differences below this are noise, not a wrong clock. */
const NOISE_MS = 5 * SECOND;

let offsetMs = 0;

export function serverNow(): number {
  return Date.now() + offsetMs;
}

/** The instant in a Date header; without one, now. */
export function madeAt(header: string | null): number {
  const made = header === null ? Number.NaN : Date.parse(header);
  return Number.isNaN(made) ? serverNow() : made;
}

/** Takes the Date header of an answer that was made just now; answers the instant it was made, by the best clock known. */
export function observeServerDate(header: string | null): number {
  const served = header === null ? Number.NaN : Date.parse(header);
  if (Number.isNaN(served)) return serverNow();
  const difference = served - Date.now();
  offsetMs = Math.abs(difference) < NOISE_MS ? 0 : difference;
  return serverNow();
}
