/** `GET /api/v1/energy/history` for the running local day, patched by the live stream. */
import { type QueryClient, queryOptions } from '@tanstack/react-query';
import type { EnergySeries } from '../../api/types';
import { type ApiClient, hasItems } from '../../lib/api/client';
import type { LiveRecord } from '../../lib/live/protocol';
import { MINUTE } from '../../lib/time/zone';
import { addRecords, type EnergyToday, energyToday } from './today';

const KEY = ['energy', 'today'] as const;

const isSeries = (body: unknown): body is EnergySeries => hasItems(body) && Array.isArray(body['devices']);

/** `day`: start and end of the household's day, so that a new day is a new query. */
export function energyTodayOptions(api: ApiClient, day: { readonly start: number; readonly end: number }) {
  return queryOptions({
    queryKey: [...KEY, day.start, day.end],
    queryFn: async ({ client, queryKey, signal }): Promise<EnergyToday> => {
      const range = { from: new Date(day.start).toISOString(), to: new Date(day.end).toISOString() };
      const { data, servedAt } = await api.get('/api/v1/energy/history', range, isSeries, signal);
      return energyToday({ ...data, ...range }, servedAt, client.getQueryData<EnergyToday>(queryKey));
    },
    // What the counters add in between is an estimate; the server's own figures replace it.
    staleTime: 4 * MINUTE,
    refetchInterval: 5 * MINUTE,
  });
}

export function patchEnergyToday(client: QueryClient, records: readonly LiveRecord[]): void {
  client.setQueriesData<EnergyToday>({ queryKey: KEY }, (today) => today && addRecords(today, records));
}
