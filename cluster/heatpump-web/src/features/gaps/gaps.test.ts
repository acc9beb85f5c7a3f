import { describe, expect, it } from 'vitest';
import type { HouseEvent } from '../../api/types';
import { gapsOf } from './gaps';

let id = 0;
function event(type: string, time: string, deviceId: string | null, details: Record<string, unknown>): HouseEvent {
  id += 1;
  return { id: String(id), type, time: `2026-01-10T${time}Z`, agent: 'p0', device_id: deviceId, details };
}
const at = (time: string) => Date.parse(`2026-01-10T${time}Z`);
const END = at('12:00:00');

describe('gapsOf', () => {
  it('takes the stretch of a loss from the event, with its number and reason', () => {
    const loss = event('buffer_loss', '09:00:00', null, { from: '2026-01-10T08:00:00Z', to: '2026-01-10T08:30:00Z', count: 12, reason: 'full' });
    expect(gapsOf([loss], ['meter'], END)).toEqual([{ from: at('08:00:00'), to: at('08:30:00'), cause: { kind: 'loss', count: 12, word: 'full' } }]);
  });

  it('joins going and coming back, in whatever order they are given', () => {
    const events = [event('device_online', '09:00:00', 'meter', { online: true }), event('device_online', '08:00:00', 'meter', { online: false })];
    expect(gapsOf(events, ['meter'], END)).toEqual([{ from: at('08:00:00'), to: at('09:00:00'), cause: { kind: 'offline', deviceId: 'meter' } }]);
  });

  it('ends at the end when the device is still away', () => {
    expect(gapsOf([event('device_online', '08:00:00', 'meter', { online: false })], ['meter'], END)).toMatchObject([{ from: at('08:00:00'), to: END }]);
  });

  it.each([
    ['a short absence', [event('device_online', '08:00:00', 'meter', { online: false }), event('device_online', '08:01:00', 'meter', { online: true })]],
    ['another device', [event('device_online', '08:00:00', 'sensor', { online: false })]],
    ['what is no gap', [event('clock_step', '08:00:00', null, { step_seconds: 4 }), event('command_outcome', '08:00:00', 'meter', {})]],
  ])('leaves out %s', (_, events) => {
    expect(gapsOf(events, ['meter'], END)).toEqual([]);
  });
});
