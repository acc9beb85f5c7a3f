/** `GET /api/v1/events` of a range. */
import { queryOptions } from '@tanstack/react-query';
import type { HouseEvent } from '../../api/types';
import { type ApiClient, hasItems } from '../../lib/api/client';
import type { TimeRange } from '../../lib/chart/range';
import { MINUTE } from '../../lib/time/zone';

export function eventsOptions(api: ApiClient, { from, to }: TimeRange) {
  return queryOptions({
    queryKey: ['events', from, to],
    queryFn: async ({ signal }): Promise<readonly HouseEvent[]> => {
      const query = { from: new Date(from).toISOString(), to: new Date(to).toISOString() };
      return (await api.get('/api/v1/events', { query }, hasItems, signal)).data.items;
    },
    staleTime: 5 * MINUTE,
  });
}
