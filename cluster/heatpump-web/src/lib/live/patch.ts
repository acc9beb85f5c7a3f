/**
 * Live readings into cached answers. A patch is no answer of the server's: it leaves the answer as old as it was, so that what only the
 * server knows (cost, what was missed) is asked for again when it is due, however many readings come in between.
 */
import type { Query, QueryClient, QueryKey } from '@tanstack/react-query';
import { SECOND } from '../time/zone';

/** Changes what is cached under `key`; where nothing is, or `change` answers what it was given, nothing happens. */
export function patchData<T>(client: QueryClient, key: QueryKey, change: (data: T) => T): void {
  const state = client.getQueryState<T>(key);
  if (state?.data === undefined) return;
  const after = change(state.data);
  if (after === state.data) return;
  client.setQueryData<T>(key, after, { updatedAt: state.dataUpdatedAt });
  if (state.isInvalidated) void client.invalidateQueries({ queryKey: key, exact: true, refetchType: 'none' });
}

/**
 * For `refetchInterval`: so long after the server's last answer, or its last failure. A number would begin anew with every patch and never
 * end.
 */
export function askAgainAfter(milliseconds: number) {
  return ({ state }: Pick<Query, 'state'>): number =>
    Math.max(SECOND, Math.max(state.dataUpdatedAt, state.errorUpdatedAt) + milliseconds - Date.now());
}
