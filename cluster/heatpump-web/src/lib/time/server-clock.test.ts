import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { madeAt, observeServerDate, serverNow } from './server-clock';

const NOW = Date.parse('2026-01-01T08:00:00Z');
const header = (offset: number) => new Date(NOW + offset).toUTCString();

beforeEach(() => {
  vi.useFakeTimers({ now: NOW });
});

afterEach(() => {
  observeServerDate(header(0));
  vi.useRealTimers();
});

it('follows a server whose clock is another, beyond what travelling takes', () => {
  observeServerDate(header(-4_000));
  expect(serverNow()).toBe(NOW);
  expect(observeServerDate(header(3_600_000))).toBe(NOW + 3_600_000);
  expect(serverNow()).toBe(NOW + 3_600_000);
  expect(observeServerDate(null)).toBe(NOW + 3_600_000);
  expect(observeServerDate('nonsense')).toBe(NOW + 3_600_000);
});

it('an answer out of a cache says when it was made and moves no clock', () => {
  expect(madeAt(header(-480_000))).toBe(NOW - 480_000);
  expect(madeAt(null)).toBe(NOW);
  expect(serverNow()).toBe(NOW);
});
