/** `GET /api/v1/devices` and `GET /api/v1/events`. */
import { type QueryClient, queryOptions } from '@tanstack/react-query';
import type { Device, HouseEvent } from '../../api/types';
import { type ApiClient, hasItems } from '../../lib/api/client';
import type { TimeRange } from '../../lib/chart/range';
import type { LiveRecord } from '../../lib/live/protocol';
import { MINUTE, SECOND } from '../../lib/time/zone';

const LIST = ['devices', 'list'] as const;
const EVENTS = ['events', 'list'] as const;

export function devicesOptions(api: ApiClient) {
  return queryOptions({
    queryKey: LIST,
    queryFn: async ({ signal }): Promise<readonly Device[]> => {
      const { data } = await api.get('/api/v1/devices', {}, hasItems, signal);
      return data.items;
    },
    // Every device reports at its own pace, most within minutes: the list is asked again rather than patched.
    refetchInterval: 30 * SECOND,
  });
}

export function eventsOptions(api: ApiClient, range: TimeRange) {
  return queryOptions({
    queryKey: [...EVENTS, range.from, range.to],
    queryFn: async ({ signal }): Promise<readonly HouseEvent[]> => {
      const query = { from: new Date(range.from).toISOString(), to: new Date(range.to).toISOString() };
      const { data } = await api.get('/api/v1/events', { query }, hasItems, signal);
      return data.items;
    },
    refetchInterval: 5 * MINUTE,
  });
}

/** A loss, a clock step or a device that came or went: the lists are asked again, and the gaps of charts. Commands have their own place. */
export function noticeEvents(client: QueryClient, records: readonly LiveRecord[]): void {
  const own = records.filter((record) => record.stream === 'events');
  if (own.some((record) => NOTICED.includes(record.reading['type']))) {
    void client.invalidateQueries({ predicate: ({ queryKey }) => queryKey[0] === 'events' && queryKey[1] !== 'outbox' });
    void client.invalidateQueries({ queryKey: LIST });
  }
}

const NOTICED: readonly unknown[] = ['buffer_loss', 'clock_step', 'device_online'];
