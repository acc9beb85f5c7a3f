/** Plugs: `/api/v1/plugs` patched by the live stream, their hours from the read API, and their schedules. */
import { type QueryClient, queryOptions } from '@tanstack/react-query';
import type { PlugHour, PlugState, Schedule } from '../../api/types';
import { type ApiClient, hasItems } from '../../lib/api/client';
import type { TimeRange } from '../../lib/chart/range';
import { booleanOf, numberOf } from '../../lib/json';
import { askAgainAfter, patchData } from '../../lib/live/patch';
import type { LiveRecord } from '../../lib/live/protocol';
import { MINUTE } from '../../lib/time/zone';

/** What a plug is, and the newest power it reported on the live stream. */
export interface Plug {
  readonly id: string;
  readonly name: string | null;
  /** Null until the plug has reported it. */
  readonly on: boolean | null;
  /** Milliseconds; null before the first report. */
  readonly reportedAt: number | null;
  /** Of an open command; never mixed with what is reported. */
  readonly wantedOn: boolean | null;
  readonly powerW: number | null;
  readonly powerAt: number | null;
}

const LIST = ['plug', 'list'] as const;

export function plugsOptions(api: ApiClient) {
  return queryOptions({
    queryKey: LIST,
    queryFn: async ({ client, signal }): Promise<readonly Plug[]> => {
      const { data } = await api.get('/api/v1/plugs', {}, hasItems, signal);
      const known = client.getQueryData<readonly Plug[]>(LIST) ?? [];
      return data.items.map((item) => fromApi(item, known.find(({ id }) => id === item.plug_id)));
    },
    refetchInterval: askAgainAfter(5 * MINUTE),
  });
}

export function plugHoursOptions(api: ApiClient, plugId: string, range: TimeRange) {
  return queryOptions({
    queryKey: ['plug', 'hours', plugId, range.from, range.to],
    queryFn: async ({ signal }): Promise<readonly PlugHour[]> => {
      const query = { from: new Date(range.from).toISOString(), to: new Date(range.to).toISOString() };
      const { data } = await api.get('/api/v1/plugs/{device_id}/history', { path: { device_id: plugId }, query }, hasItems, signal);
      return data.items;
    },
    staleTime: MINUTE,
    refetchInterval: 5 * MINUTE,
  });
}

export interface Schedules {
  readonly items: readonly Schedule[];
  readonly zone: string;
}

export function schedulesOptions(api: ApiClient, plugId: string) {
  return queryOptions({
    queryKey: ['plug', 'schedules', plugId],
    queryFn: async ({ signal }): Promise<Schedules> => {
      const { data } = await api.get('/api/v1/plugs/{plug_id}/schedules', { path: { plug_id: plugId } }, hasItems, signal);
      return { items: data.items, zone: data.time_zone };
    },
    refetchInterval: 5 * MINUTE,
  });
}

export function patchPlugs(client: QueryClient, records: readonly LiveRecord[]): void {
  const own = records.filter((record) => record.stream === 'plug');
  if (own.length === 0) return;
  patchData<readonly Plug[]>(client, LIST, (plugs) => own.reduce(mergePlug, plugs));
}

/** What the plug reports, field by field and only if newer. What is wanted is for the settings API alone to say. */
export function mergePlug(plugs: readonly Plug[], record: LiveRecord): readonly Plug[] {
  const known = plugs.find(({ id }) => id === record.deviceId);
  const on = booleanOf(record.reading['on']);
  const powerW = numberOf(record.reading['power_w']);
  const plug = known ?? { id: record.deviceId, name: record.location, on: null, reportedAt: null, wantedOn: null, powerW: null, powerAt: null };
  const newer = (at: number | null) => at === null || record.time > at;
  const merged: Plug = {
    ...plug,
    ...(on !== null && newer(plug.reportedAt) && { on, reportedAt: record.time }),
    ...(powerW !== null && newer(plug.powerAt) && { powerW, powerAt: record.time }),
  };
  return known === undefined ? [...plugs, merged] : plugs.map((one) => (one === known ? merged : one));
}

function fromApi(item: PlugState, known: Plug | undefined): Plug {
  const reportedAt = item.reported_at === null || item.reported_at === undefined ? null : Date.parse(item.reported_at);
  // The answer may have been under way while the live stream brought something newer.
  const newer = known !== undefined && (known.reportedAt ?? 0) > (reportedAt ?? 0);
  return {
    id: item.plug_id,
    name: item.name ?? known?.name ?? null,
    on: newer ? known.on : (item.on ?? null),
    reportedAt: newer ? known.reportedAt : reportedAt,
    wantedOn: item.wanted_on ?? null,
    powerW: known?.powerW ?? null,
    powerAt: known?.powerAt ?? null,
  };
}
