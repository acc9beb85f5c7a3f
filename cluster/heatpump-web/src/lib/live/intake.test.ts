import { expect, it } from 'vitest';
import { Intake } from './intake';
import type { ServerMessage } from './protocol';

function data(id: string, cursor: string | null): ServerMessage {
  const record = { stream: 'energy', id, time: 0, deviceId: 'd', agent: 'p0', clock: 'synced', location: null, reading: {} } as const;
  return { type: 'data', cursor, record };
}

it('takes each reading once, and the cursor of a repeated one still counts', () => {
  const intake = new Intake();
  expect(intake.accept(data('a/1/1', 'c1'))?.id).toBe('a/1/1');
  expect(intake.accept(data('a/1/2', 'c2'))?.id).toBe('a/1/2');
  expect(intake.accept(data('a/1/1', 'c3'))).toBeNull();
  expect(intake.cursor).toBe('c3');
});

it('starts with the cursor of the first subscription and keeps its own after that', () => {
  const intake = new Intake();
  expect(intake.cursor).toBeNull();
  intake.accept({ type: 'subscribed', cursor: 'c0' });
  expect(intake.cursor).toBe('c0');
  intake.accept(data('a/1/1', 'c1'));
  intake.accept({ type: 'subscribed', cursor: 'c0' });
  expect(intake.cursor).toBe('c1');
});

it('keeps the last cursor when a message has none', () => {
  const intake = new Intake();
  intake.accept(data('a/1/1', 'c1'));
  intake.accept(data('a/1/2', null));
  expect(intake.cursor).toBe('c1');
});

it('remembers a bounded number of ids, the newest', () => {
  const intake = new Intake();
  for (let number = 0; number < 10_000; number += 1) intake.accept(data(`a/1/${number}`, null));
  expect(intake.accept(data('a/1/9999', null))).toBeNull();
  expect(intake.accept(data('a/1/6000', null))).toBeNull();
  expect(intake.accept(data('a/1/0', null))).not.toBeNull();
});
