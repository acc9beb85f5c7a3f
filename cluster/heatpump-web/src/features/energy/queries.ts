/** `GET /api/v1/energy/history` for the running local day, patched by the live stream. */
import { type QueryClient, queryOptions } from '@tanstack/react-query';
import type { EnergySeries } from '../../api/types';
import { type ApiClient, hasItems } from '../../lib/api/client';
import type { LiveRecord } from '../../lib/live/protocol';
import { MINUTE, SECOND } from '../../lib/time/zone';
import { addRecords, type EnergyToday, energyToday } from './today';

const KEY = ['energy', 'today'] as const;

/** A reading is in the database within a second or two; asking more often than this would only be impatient. */
const ASK_AGAIN_MS = 10 * SECOND;

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

export function patchEnergyToday(client: QueryClient, records: readonly LiveRecord[], now: number): void {
  if (!records.some((record) => record.stream === 'energy')) return;
  for (const [, today] of client.getQueriesData<EnergyToday>({ queryKey: KEY })) {
    // The first meter of a new house reports: the server knows by now that it is the main one.
    if (today?.series.devices.length === 0 && now - today.asOf > ASK_AGAIN_MS) {
      void client.invalidateQueries({ queryKey: KEY });
    }
  }
  client.setQueriesData<EnergyToday>({ queryKey: KEY }, (today) => today && addRecords(today, records));
}
