/** Energy by hour, day, month and year; of the running local day by hour and patched by the live stream. */
import { type QueryClient, queryOptions } from '@tanstack/react-query';
import type { EnergySeries } from '../../api/types';
import { type ApiClient, hasItems, type ReadPath } from '../../lib/api/client';
import type { TimeRange } from '../../lib/chart/range';
import { isObject } from '../../lib/json';
import { askAgainAfter, patchData } from '../../lib/live/patch';
import type { LiveRecord } from '../../lib/live/protocol';
import type { Bucket } from '../../lib/time/period';
import { serverNow } from '../../lib/time/server-clock';
import { MINUTE, SECOND } from '../../lib/time/zone';
import { type Gains, gainsBetween, withGains } from './live-series';
import { addRecords, type EnergyToday, energyToday } from './today';

const KEY = ['energy', 'today'] as const;

/** A reading is in the database within a second or two; asking more often than this would only be impatient. */
const ASK_AGAIN_MS = 10 * SECOND;

const isSeries = (body: unknown) => hasItems(body) && isObject(body) && Array.isArray(body['devices']);

/** Which endpoint answers which bars. */
export const ENDPOINTS = {
  hour: '/api/v1/energy/history',
  day: '/api/v1/energy/daily-summary',
  month: '/api/v1/energy/monthly-summary',
  year: '/api/v1/energy/yearly-summary',
} as const satisfies Record<Bucket, ReadPath>;

/** Any period. One that is not over yet is patched by the live stream, and asked again every few minutes. */
export function energySeriesOptions(api: ApiClient, bucket: Bucket, { from, to }: TimeRange) {
  return queryOptions({
    queryKey: ['energy', bucket, from, to],
    queryFn: async ({ signal }): Promise<EnergySeries> => {
      const query = { from: new Date(from).toISOString(), to: new Date(to).toISOString() };
      return (await api.get(ENDPOINTS[bucket], { query }, isSeries, signal)).data;
    },
    staleTime: 2 * MINUTE,
    refetchInterval: (query) => serverNow() < to && askAgainAfter(5 * MINUTE)(query),
  });
}

/** `day`: start and end of the household's day, so that a new day is a new query. */
export function energyTodayOptions(api: ApiClient, day: { readonly start: number; readonly end: number }) {
  return queryOptions({
    queryKey: [...KEY, day.start, day.end],
    queryFn: async ({ client, queryKey, signal }): Promise<EnergyToday> => {
      const range = { from: new Date(day.start).toISOString(), to: new Date(day.end).toISOString() };
      const { data, servedAt } = await api.get('/api/v1/energy/history', { query: range }, isSeries, signal);
      return energyToday({ ...data, ...range }, servedAt, client.getQueryData<EnergyToday>(queryKey));
    },
    // What the counters add in between is an estimate; the server's own figures replace it.
    staleTime: 4 * MINUTE,
    refetchInterval: askAgainAfter(5 * MINUTE),
  });
}

export function patchEnergyToday(client: QueryClient, records: readonly LiveRecord[], now: number): void {
  const own = records.filter((record) => record.stream === 'energy');
  if (own.length === 0) return;
  const newest = Math.max(...own.map((record) => record.time));
  for (const [, today] of client.getQueriesData<EnergyToday>({ queryKey: KEY })) {
    // The first meter of a new house reports: the server knows by now that it is the main one.
    if (today?.series.devices.length === 0 && now - today.asOf > ASK_AGAIN_MS) {
      void client.invalidateQueries({ queryKey: KEY });
    }
  }
  for (const [key, today] of client.getQueriesData<EnergyToday>({ queryKey: KEY })) {
    const after = today && addRecords(today, records);
    if (today === undefined || after === undefined || after === today) continue;
    patchData<EnergyToday>(client, key, () => after);
    carry(client, gainsBetween(today, after), newest);
  }
}

/** Into every period that is shown or was, but for one that was answered after the newest of the readings: it has them. */
function carry(client: QueryClient, gains: Gains, newest: number): void {
  if (gains.size === 0) return;
  const aheadMs = serverNow() - Date.now();
  for (const bucket of Object.keys(ENDPOINTS)) {
    for (const [key, series] of client.getQueriesData<EnergySeries>({ queryKey: ['energy', bucket] })) {
      if (series === undefined || (client.getQueryState(key)?.dataUpdatedAt ?? 0) + aheadMs > newest) continue;
      const after = withGains(series, gains);
      if (after === null) void client.invalidateQueries({ queryKey: key }, { cancelRefetch: false });
      else patchData<EnergySeries>(client, key, () => after);
    }
  }
}
