/** Why a chart has holes: what the house said about losses and about devices that were away. Pure. */
import type { HouseEvent } from '../../api/types';
import type { TimeRange } from '../../lib/chart/range';
import { booleanOf, numberOf, stringOf } from '../../lib/json';
import { MINUTE } from '../../lib/time/zone';

export type Cause =
  /** Readings reached the house's computer and were not kept. */
  | { readonly kind: 'loss'; readonly count: number; readonly word: string }
  /** The device was not connected. */
  | { readonly kind: 'offline'; readonly deviceId: string };

export interface KnownGap extends TimeRange {
  readonly cause: Cause;
}

/** A device that comes back sooner has missed nothing a chart could show. */
const SHORTEST_ABSENCE_MS = 5 * MINUTE;

/**
 * `devices` are those the chart is drawn from. Sensors that sleep between their readings are offline most of the time and must not be
 * among them. `end` closes what is still going on.
 */
export function gapsOf(events: readonly HouseEvent[], devices: readonly string[], end: number): readonly KnownGap[] {
  const gaps: KnownGap[] = [];
  const awaySince = new Map<string, number>();
  const back = (deviceId: string, to: number) => {
    const from = awaySince.get(deviceId);
    awaySince.delete(deviceId);
    if (from !== undefined && to - from >= SHORTEST_ABSENCE_MS) gaps.push({ from, to, cause: { kind: 'offline', deviceId } });
  };
  for (const event of [...events].sort((a, b) => Date.parse(a.time) - Date.parse(b.time))) {
    const time = Date.parse(event.time);
    if (event.type === 'buffer_loss') {
      // A loss of the agent is everybody's; one of a device concerns only charts of that device.
      if (event.device_id !== null && !devices.includes(event.device_id)) continue;
      const from = Date.parse(stringOf(event.details['from']) ?? event.time);
      const to = Date.parse(stringOf(event.details['to']) ?? event.time);
      if (Number.isNaN(from) || Number.isNaN(to)) continue;
      gaps.push({ from, to, cause: { kind: 'loss', count: numberOf(event.details['count']) ?? 0, word: stringOf(event.details['reason']) ?? '' } });
    } else if (event.type === 'device_online' && event.device_id !== null && devices.includes(event.device_id)) {
      if (booleanOf(event.details['online']) === true) back(event.device_id, time);
      else if (!awaySince.has(event.device_id)) awaySince.set(event.device_id, time);
    }
  }
  for (const deviceId of [...awaySince.keys()]) back(deviceId, end);
  return gaps.sort((a, b) => a.from - b.from);
}
