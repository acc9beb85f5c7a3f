import { describe, expect, it } from 'vitest';
import type { Command } from '../../api/types';
import { isOpen, reasonOf, storyOf } from './story';

const PENDING: Command = {
  id: 7,
  device_id: 'ivt',
  kind: 'heatpump_settings',
  asked: { indoor_target_c: 22 },
  wanted: { indoor_target_c: 22 },
  status: 'pending',
  attempts: 0,
  agent: 'p0',
  requested_by: 'owner',
  created_at: '2026-01-01T08:00:00Z',
  expires_at: '2026-01-01T08:10:00Z',
};
const SENT = { attempts: 1, published_at: '2026-01-01T08:00:01Z' };
const FINISHED = { finished_at: '2026-01-01T08:00:31Z' };

describe('storyOf', () => {
  it.each([
    ['waits to be sent', {}, ['accepted now', 'sent ahead', 'confirmed ahead']],
    ['is sent and waits for the device', { ...SENT, status: 'published' }, ['accepted done', 'sent now', 'confirmed ahead']],
    ['is confirmed', { ...SENT, ...FINISHED, status: 'confirmed' }, ['accepted done', 'sent done', 'confirmed done']],
    ['is ignored three times', { ...SENT, ...FINISHED, attempts: 3, status: 'failed' }, ['accepted done', 'sent done', 'failed done']],
    ['expires before it could be sent', { ...FINISHED, status: 'expired' }, ['accepted done', 'expired done']],
    ['is replaced before it was sent', { ...FINISHED, status: 'superseded' }, ['accepted done', 'superseded done']],
    ['is in a state of a newer server', { status: 'resting' }, ['accepted now', 'sent ahead', 'confirmed ahead']],
  ])('%s', (_, change, expected) => {
    expect(storyOf({ ...PENDING, ...change }).map(({ step, state }) => `${step} ${state}`)).toEqual(expected);
  });

  it('carries the time of each step that has come', () => {
    const times = storyOf({ ...PENDING, ...SENT, ...FINISHED, status: 'confirmed' }).map(({ at }) => at);
    expect(times).toEqual([Date.parse('2026-01-01T08:00:00Z'), Date.parse('2026-01-01T08:00:01Z'), Date.parse('2026-01-01T08:00:31Z')]);
  });
});

it('is open until it has ended one way or the other', () => {
  const open = (status: string) => isOpen({ status });
  expect(['pending', 'published', 'confirmed', 'failed', 'expired', 'superseded'].map(open)).toEqual([true, true, false, false, false, false]);
});

it('knows the reasons of the settings API and no others', () => {
  expect(reasonOf('the device was not connected')).toBe('away');
  expect(reasonOf('by 42')).toBe('replaced');
  expect(reasonOf('a new reason')).toBeNull();
});
