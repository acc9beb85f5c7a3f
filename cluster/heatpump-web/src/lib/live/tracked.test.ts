import { describe, expect, it } from 'vitest';
import { type DeviceReading, mergeReading, mergeReadings } from './tracked';

interface Fields {
  power: number | null;
  counter: number | null;
}

function reading(time: number, values: DeviceReading<Fields>['values'], deviceId = 'meter', location: string | null = null): DeviceReading<Fields> {
  return { deviceId, agent: 'p0', location, clock: 'synced', time, values };
}

describe('mergeReading', () => {
  it('keeps fields a newer frame does not carry, with their own time', () => {
    const first = mergeReading(undefined, reading(1, { power: 100, counter: 5 }));
    const second = mergeReading(first, reading(2, { power: 200, counter: null }));
    expect(second.fields).toEqual({ power: { value: 200, time: 2 }, counter: { value: 5, time: 1 } });
    expect(second.time).toBe(2);
  });

  it('does not let a late frame replace a newer value, but takes what it alone has', () => {
    const first = mergeReading(undefined, reading(5, { power: 100 }));
    const late = mergeReading(first, reading(3, { power: 50, counter: 7 }));
    expect(late.fields).toEqual({ power: { value: 100, time: 5 }, counter: { value: 7, time: 3 } });
    expect(late.time).toBe(5);
  });

  it('gives the same result in any order', () => {
    const frames = [reading(1, { power: 1 }), reading(2, { counter: 2 }), reading(3, { power: 3 }), reading(4, { counter: 4 })];
    const forward = frames.reduce((state, frame) => mergeReading(state, frame), mergeReading<Fields>(undefined, reading(0, {})));
    const backward = frames.toReversed().reduce((state, frame) => mergeReading(state, frame), mergeReading<Fields>(undefined, reading(0, {})));
    expect(backward).toEqual(forward);
  });

  it('answers the same object when nothing is newer, so that nothing is drawn again', () => {
    const first = mergeReading(undefined, reading(5, { power: 100 }));
    expect(mergeReading(first, reading(5, { power: 100 }))).toBe(first);
    expect(mergeReading(first, reading(4, { power: 90 }))).toBe(first);
  });

  it('takes zero and false for values', () => {
    expect(mergeReading(mergeReading(undefined, reading(1, { power: 5 })), reading(2, { power: 0 })).fields.power?.value).toBe(0);
  });
});

describe('mergeReadings', () => {
  it('sorts by place, those without one last, and adds a device that appears', () => {
    const devices = mergeReadings([], [reading(1, {}, 'b', 'kitchen'), reading(1, {}, 'c'), reading(1, {}, 'a', 'bedroom')]);
    expect(devices.map((device) => device.deviceId)).toEqual(['a', 'b', 'c']);
    expect(mergeReadings(devices, [reading(2, {}, 'd', 'attic')]).map((device) => device.deviceId)).toEqual(['d', 'a', 'b', 'c']);
  });

  it('answers the same list when nothing is newer', () => {
    const devices = mergeReadings([], [reading(2, { power: 1 })]);
    expect(mergeReadings(devices, [reading(1, { power: 9 })])).toBe(devices);
  });
});
