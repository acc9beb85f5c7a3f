import { describe, expect, it } from 'vitest';
import { HOUR, hoursOfDay, localDate, localDay } from './zone';

const STOCKHOLM = 'Europe/Stockholm';
const at = (text: string) => Date.parse(text);

describe('localDay', () => {
  it.each([
    ['an ordinary winter day', STOCKHOLM, '2026-01-15T12:00:00Z', '2026-01-14T23:00:00Z', '2026-01-15T23:00:00Z'],
    ['an ordinary summer day', STOCKHOLM, '2026-07-15T12:00:00Z', '2026-07-14T22:00:00Z', '2026-07-15T22:00:00Z'],
    ['late in the UTC evening it is already tomorrow', STOCKHOLM, '2026-01-15T23:30:00Z', '2026-01-15T23:00:00Z', '2026-01-16T23:00:00Z'],
    ['the first instant belongs to the day', STOCKHOLM, '2026-01-14T23:00:00Z', '2026-01-14T23:00:00Z', '2026-01-15T23:00:00Z'],
    ['the last instant belongs to the day', STOCKHOLM, '2026-01-15T22:59:59.999Z', '2026-01-14T23:00:00Z', '2026-01-15T23:00:00Z'],
    ['clocks go forward: 23 hours', STOCKHOLM, '2026-03-29T12:00:00Z', '2026-03-28T23:00:00Z', '2026-03-29T22:00:00Z'],
    ['clocks go back: 25 hours', STOCKHOLM, '2026-10-25T12:00:00Z', '2026-10-24T22:00:00Z', '2026-10-25T23:00:00Z'],
    ['the last day of a year', STOCKHOLM, '2026-12-31T12:00:00Z', '2026-12-30T23:00:00Z', '2026-12-31T23:00:00Z'],
    ['a leap day', STOCKHOLM, '2028-02-29T12:00:00Z', '2028-02-28T23:00:00Z', '2028-02-29T23:00:00Z'],
    ['a zone of a half hour', 'Asia/Kolkata', '2026-01-15T12:00:00Z', '2026-01-14T18:30:00Z', '2026-01-15T18:30:00Z'],
    ['a zone west of Greenwich', 'America/New_York', '2026-01-15T02:00:00Z', '2026-01-14T05:00:00Z', '2026-01-15T05:00:00Z'],
    ['a day whose midnight was skipped', 'Africa/Cairo', '2026-04-24T12:00:00Z', '2026-04-23T22:00:00Z', '2026-04-24T21:00:00Z'],
    ['a day whose midnight comes twice starts at the first', 'America/Havana', '2026-11-01T12:00:00Z', '2026-11-01T04:00:00Z', '2026-11-02T05:00:00Z'],
  ])('%s', (_, zone, instant, start, end) => {
    expect(localDay(at(instant), zone)).toEqual({ start: at(start), end: at(end) });
  });
});

describe('hoursOfDay', () => {
  it('gives 24 hours that touch each other on an ordinary day', () => {
    const hours = hoursOfDay(at('2026-01-15T12:00:00Z'), STOCKHOLM);
    expect(hours.map((hour) => hour.hour)).toEqual(Array.from({ length: 24 }, (_, hour) => hour));
    expect(hours.every((hour, index) => hour.end === (hours[index + 1]?.start ?? hour.end))).toBe(true);
  });

  it('leaves out the hour that clocks skip', () => {
    const hours = hoursOfDay(at('2026-03-29T12:00:00Z'), STOCKHOLM).map((hour) => hour.hour);
    expect(hours).toHaveLength(23);
    expect(hours.slice(0, 4)).toEqual([0, 1, 3, 4]);
  });

  it('gives the hour that clocks repeat twice, and says which is the second', () => {
    const hours = hoursOfDay(at('2026-10-25T12:00:00Z'), STOCKHOLM);
    expect(hours).toHaveLength(25);
    expect(hours.filter((hour) => hour.hour === 2)).toEqual([
      { start: at('2026-10-25T00:00:00Z'), end: at('2026-10-25T01:00:00Z'), hour: 2, repeated: false },
      { start: at('2026-10-25T01:00:00Z'), end: at('2026-10-25T02:00:00Z'), hour: 2, repeated: true },
    ]);
  });

  it('covers every day of a year without a hole, in zones with odd offsets too', () => {
    for (const zone of [STOCKHOLM, 'Australia/Lord_Howe', 'Asia/Kathmandu', 'America/Sao_Paulo', 'Africa/Cairo']) {
      const start = localDay(at('2026-01-01T12:00:00Z'), zone).start;
      let instant = start;
      while (instant < start + 366 * 24 * HOUR) {
        const day = localDay(instant, zone);
        expect(day.start).toBe(instant);
        const hours = hoursOfDay(instant, zone);
        expect(hours[0]?.start).toBe(day.start);
        expect(hours.at(-1)?.end).toBe(day.end);
        for (const [index, hour] of hours.entries()) {
          expect(hour.end - hour.start).toBeLessThanOrEqual(HOUR);
          if (index > 0) expect(hour.start).toBe(hours[index - 1]?.end);
        }
        instant = day.end;
      }
    }
  });
});

it('localDate names the day of the zone', () => {
  expect(localDate(at('2025-12-31T23:30:00Z'), STOCKHOLM)).toEqual({ year: 2026, month: 1, day: 1 });
});
