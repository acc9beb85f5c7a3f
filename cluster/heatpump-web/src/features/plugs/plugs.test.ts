import { describe, expect, it } from 'vitest';
import type { LiveRecord } from '../../lib/live/protocol';
import { mergePlug, type Plug } from './queries';
import { bodyOf, dayNames, draftOf, faultsOf, toggled } from './schedule-form';

const PLUG: Plug = { id: 'lamp', name: null, on: false, reportedAt: 1_000, wantedOn: true, powerW: null, powerAt: null };

function record(time: number, reading: LiveRecord['reading'], deviceId = 'lamp'): LiveRecord {
  return { stream: 'plug', id: String(time), time, deviceId, agent: 'p0', clock: 'synced', location: null, reading };
}

describe('mergePlug', () => {
  it('takes over what is reported and leaves what is wanted alone', () => {
    expect(mergePlug([PLUG], record(2_000, { on: true, power_w: 60 }))).toEqual([{ ...PLUG, on: true, reportedAt: 2_000, powerW: 60, powerAt: 2_000 }]);
  });

  it('keeps the state when a frame brings only the power, and what is newer than the frame', () => {
    expect(mergePlug([PLUG], record(2_000, { power_w: 60 }))[0]).toMatchObject({ on: false, reportedAt: 1_000, powerW: 60 });
    expect(mergePlug([PLUG], record(500, { on: true }))[0]).toMatchObject({ on: false, reportedAt: 1_000 });
  });

  it('shows a plug that is heard for the first time', () => {
    expect(mergePlug([PLUG], record(2_000, { on: true }, 'fridge')).map(({ id }) => id)).toEqual(['lamp', 'fridge']);
  });
});

describe('a schedule', () => {
  const draft = draftOf(null);

  it('begins as every day at seven, and is sent as it stands', () => {
    expect(faultsOf(draft)).toEqual([]);
    expect(bodyOf(draft)).toEqual({ weekdays: [1, 2, 3, 4, 5, 6, 7], local_time: '07:00', on: true });
  });

  it.each(['24:00', '7:00', '07:60', '', '07:00:00'])('is not saved at %s', (time) => {
    expect(faultsOf({ ...draft, time })).toEqual(['local_time']);
  });

  it('is not saved without a day', () => {
    expect(faultsOf({ ...draft, weekdays: [] })).toEqual(['weekdays']);
  });

  it('keeps its days in the week\'s order', () => {
    expect(toggled([1, 5], 3)).toEqual([1, 3, 5]);
    expect(toggled([1, 3, 5], 3)).toEqual([1, 5]);
  });

  it.each([
    [[1, 2, 3, 4, 5, 6, 7], 'every day'],
    [[5, 1, 2, 3, 4], 'Mon\u2013Fri'],
    [[6, 7], 'Sat, Sun'],
    [[1, 3, 4, 5, 7], 'Mon, Wed\u2013Fri, Sun'],
  ])('%j is %s', (days, expected) => {
    expect(dayNames(days, ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'], 'every day')).toBe(expected);
  });
});
