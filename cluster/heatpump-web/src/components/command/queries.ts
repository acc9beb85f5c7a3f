/**
 * The outbox of a device: its latest commands, asked for again whenever the live stream says that one of them changed. Commands are never
 * made here.
 */
import { infiniteQueryOptions, type QueryClient, queryOptions } from '@tanstack/react-query';
import type { Command, CommandChange } from '../../api/types';
import { type ApiClient, hasItems } from '../../lib/api/client';
import { isObject } from '../../lib/json';
import type { LiveRecord } from '../../lib/live/protocol';
import { SECOND } from '../../lib/time/zone';

export type CommandKind = 'heatpump' | 'plug';

interface Page {
  readonly items: readonly Command[];
  readonly next: number | null;
}

/** Under `events`, so that events the live stream missed have it asked again as well. */
const OUTBOX = ['events', 'outbox'] as const;
/** What fits a phone's screen; older ones are asked for. */
const PAGE_SIZE = 5;
/** Should the live stream be away, an open command is still asked about. */
const OPEN_REFETCH_MS = 15 * SECOND;

export function outboxOptions(api: ApiClient, kind: CommandKind, deviceId: string) {
  return infiniteQueryOptions({
    queryKey: [...OUTBOX, kind, deviceId],
    queryFn: async ({ signal, pageParam }): Promise<Page> => {
      const query = { limit: PAGE_SIZE, ...(pageParam !== null && { before: pageParam }) };
      const { data } =
        kind === 'heatpump'
          ? await api.get('/api/v1/heatpump/settings/{device_id}/outbox', { path: { device_id: deviceId }, query }, hasItems, signal)
          : await api.get('/api/v1/plugs/{plug_id}/outbox', { path: { plug_id: deviceId }, query }, hasItems, signal);
      return { items: data.items, next: data.next ?? null };
    },
    initialPageParam: null as number | null,
    getNextPageParam: (page) => page.next,
    refetchInterval: (query) => (query.state.data?.pages[0]?.items.some((command) => command.status === 'pending' || command.status === 'published') === true ? OPEN_REFETCH_MS : false),
  });
}

export function commandOptions(api: ApiClient, kind: CommandKind, command: Pick<Command, 'id' | 'device_id' | 'status' | 'attempts'>) {
  const { id, device_id: deviceId, status, attempts } = command;
  return queryOptions({
    // A state that changed is another story.
    queryKey: [...OUTBOX, kind, deviceId, id, status, attempts],
    queryFn: async ({ signal }): Promise<readonly CommandChange[]> => {
      const hasHistory = (body: unknown) => isObject(body) && Array.isArray(body['history']);
      const { data } =
        kind === 'heatpump'
          ? await api.get('/api/v1/heatpump/settings/outbox/{id}', { path: { id } }, hasHistory, signal)
          : await api.get('/api/v1/plugs/{plug_id}/outbox/{id}', { path: { plug_id: deviceId, id } }, hasHistory, signal);
      return data.history;
    },
  });
}

/** After a change was accepted or one of its states changed: the outbox, and what is wanted, which only the settings API can say. */
export async function commandsChanged(client: QueryClient, deviceId: string | null): Promise<void> {
  const ofDevice = (key: readonly unknown[]) => key[0] === 'events' && key[1] === 'outbox' && (deviceId === null || key[3] === deviceId);
  await Promise.all([
    client.invalidateQueries({ predicate: ({ queryKey }) => ofDevice(queryKey) }),
    client.invalidateQueries({ queryKey: ['heatpump', 'settings'] }),
    client.invalidateQueries({ queryKey: ['plug', 'list'] }),
  ]);
}

export function noticeCommands(client: QueryClient, records: readonly LiveRecord[]): void {
  const changed = records.filter((record) => record.stream === 'events' && record.reading['type'] === 'outbox_changed');
  for (const deviceId of new Set(changed.map((record) => record.deviceId))) void commandsChanged(client, deviceId === '' ? null : deviceId);
}
