import { QueryClient, QueryObserver } from '@tanstack/react-query';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { askAgainAfter, patchData } from './patch';

// The library asks nothing again where there is no window.
vi.hoisted(() => vi.stubGlobal('window', globalThis));

const KEY = ['energy', 'today'];

beforeEach(() => {
  vi.useFakeTimers({ now: Date.parse('2026-01-01T08:00:00Z') });
});

afterEach(() => {
  vi.useRealTimers();
});

it('a patched answer is as old as it was, and is asked for again in its time', async () => {
  const client = new QueryClient();
  client.mount();
  const ask = vi.fn(() => Promise.resolve(100));
  const observer = new QueryObserver(client, { queryKey: KEY, queryFn: ask, refetchInterval: askAgainAfter(60_000) });
  const stop = observer.subscribe(() => undefined);
  await vi.advanceTimersByTimeAsync(0);
  expect(ask).toHaveBeenCalledTimes(1);
  // A reading a second: a plain interval would begin anew with each.
  for (let second = 0; second < 90; second += 1) {
    patchData<number>(client, KEY, (sum) => sum + 1);
    await vi.advanceTimersByTimeAsync(1_000);
  }
  expect(ask).toHaveBeenCalledTimes(2);
  expect(client.getQueryData(KEY)).toBeLessThan(100 + 40);
  stop();
  client.clear();
});

it('one that fails is asked for again at the same pace, not every second', async () => {
  const client = new QueryClient({ defaultOptions: { queries: { retry: false } } });
  client.mount();
  const ask = vi.fn(() => Promise.reject(new Error('away')));
  const stop = new QueryObserver(client, { queryKey: KEY, queryFn: ask, refetchInterval: askAgainAfter(60_000) }).subscribe(() => undefined);
  await vi.advanceTimersByTimeAsync(150_000);
  expect(ask).toHaveBeenCalledTimes(3);
  stop();
  client.clear();
});

it('what was missed stays missed until the server answers', () => {
  const client = new QueryClient();
  client.setQueryData(KEY, 1);
  void client.invalidateQueries({ queryKey: KEY });
  patchData<number>(client, KEY, (sum) => sum + 1);
  expect(client.getQueryState(KEY)).toMatchObject({ data: 2, isInvalidated: true });
  patchData<number>(client, ['nobody asked'], (sum) => sum + 1);
  expect(client.getQueryState(['nobody asked'])).toBeUndefined();
  client.clear();
});
