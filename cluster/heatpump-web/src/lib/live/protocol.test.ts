import { describe, expect, it } from 'vitest';
import { parseServerMessage } from './protocol';

const DATA = {
  type: 'data',
  stream: 'energy',
  timestamp: '2026-01-01T08:00:13.000001Z',
  id: 'p0/9c41f02b/12346',
  cursor: 'c1',
  data: { device_id: 'SE1234567', agent: 'p0', location: null, clock: 'synced', reading: { power_w: 3241 } },
};

describe('parseServerMessage', () => {
  it('reads a reading as docs/API.md writes it', () => {
    expect(parseServerMessage(JSON.stringify(DATA))).toEqual({
      type: 'data',
      cursor: 'c1',
      record: {
        stream: 'energy',
        id: 'p0/9c41f02b/12346',
        time: Date.parse('2026-01-01T08:00:13.000Z'),
        deviceId: 'SE1234567',
        agent: 'p0',
        clock: 'synced',
        location: null,
        reading: { power_w: 3241 },
      },
    });
  });

  it('reads an event, which has no reading and may have no device', () => {
    const data = { type: 'outbox_changed', outbox_id: 7, status: 'confirmed' };
    const message = parseServerMessage(JSON.stringify({ ...DATA, stream: 'events', data }));
    expect(message).toMatchObject({ type: 'data', record: { stream: 'events', deviceId: '', agent: '', reading: data } });
  });

  it.each([
    [{ type: 'authenticated', expires_at: '2026-01-01T09:00:00Z' }, { type: 'authenticated' }],
    [{ type: 'subscribed', streams: ['energy'], cursor: 'c0' }, { type: 'subscribed', cursor: 'c0' }],
    [{ type: 'gap', stream: 'energy', from: 'a', to: 'b', reason: 'window' }, { type: 'gap', stream: 'energy' }],
    [{ type: 'pong' }, { type: 'pong' }],
    [{ type: 'error', code: 'forbidden', message: 'no' }, { type: 'error', code: 'forbidden', message: 'no' }],
  ])('%j', (message, expected) => {
    expect(parseServerMessage(JSON.stringify(message))).toEqual(expected);
  });

  it.each([
    ['not JSON', 'hello'],
    ['nothing', ''],
    ['a number', '7'],
    ['a list', '[]'],
    ['null', 'null'],
    ['a type of a newer server', '{"type":"weather"}'],
    ['a stream this page does not show', JSON.stringify({ ...DATA, stream: 'weather' })],
    ['no id', JSON.stringify({ ...DATA, id: undefined })],
    ['a time that is none', JSON.stringify({ ...DATA, timestamp: 'yesterday' })],
    ['no data', JSON.stringify({ ...DATA, data: null })],
    ['no device', JSON.stringify({ ...DATA, data: { reading: {} } })],
    ['a reading that is a text', JSON.stringify({ ...DATA, data: { device_id: 'x', reading: 'y' } })],
  ])('passes over what it does not understand: %s', (_, text) => {
    expect(parseServerMessage(text)).toBeNull();
  });
});
