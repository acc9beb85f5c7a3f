import { describe, expect, it } from 'vitest';
import { Format } from '../format/format';
import { timeTicks } from './time-ticks';

const ZONE = 'Europe/Stockholm';

function shown(from: string, to: string, most: number): { unit: string; labels: string[] } {
  const { unit, instants } = timeTicks({ from: Date.parse(from), to: Date.parse(to) }, ZONE, most);
  const format = new Format('en-GB', ZONE);
  return { unit, labels: instants.map((instant) => format.tick(instant, unit)) };
}

describe('timeTicks', () => {
  it.each([
    ['a day', '2026-01-09T23:00:00Z', '2026-01-10T23:00:00Z', 5, 'hour', ['Sat 10', '06:00', '12:00', '18:00', 'Sun 11']],
    ['the day that loses an hour', '2026-03-28T23:00:00Z', '2026-03-29T22:00:00Z', 5, 'hour', ['Sun 29', '06:00', '12:00', '18:00', 'Mon 30']],
    ['the day that has one twice', '2026-10-24T22:00:00Z', '2026-10-25T23:00:00Z', 5, 'hour', ['Sun 25', '06:00', '12:00', '18:00', 'Mon 26']],
    ['a quarter of an hour', '2026-01-10T08:00:00Z', '2026-01-10T08:15:00Z', 4, 'minute', ['09:00', '09:05', '09:10', '09:15']],
    ['weeks begin on Monday', '2026-01-01T00:00:00Z', '2026-01-31T00:00:00Z', 5, 'day', ['5 Jan', '12 Jan', '19 Jan', '26 Jan']],
    ['a year by quarters', '2025-12-31T23:00:00Z', '2026-12-31T22:59:00Z', 5, 'month', ['Jan', 'Apr', 'Jul', 'Oct']],
    ['ten years', '2015-12-31T23:00:00Z', '2025-12-31T22:00:00Z', 5, 'year', ['2016', '2018', '2020', '2022', '2024']],
  ])('%s', (_, from, to, most, unit, labels) => {
    expect(shown(from, to, most)).toEqual({ unit, labels });
  });

  it('never gives more marks than asked for, at any length', () => {
    const from = Date.parse('2024-02-27T11:22:33Z');
    for (let span = 6 * 60_000; span < 40 * 366 * 86_400_000; span *= 1.7) {
      const { instants } = timeTicks({ from, to: from + span }, ZONE, 6);
      expect(instants.length, String(span)).toBeLessThanOrEqual(7);
      expect([...instants].sort((a, b) => a - b)).toEqual(instants);
    }
  });
});
