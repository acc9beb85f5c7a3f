import { expect, it } from 'vitest';
import { axisTicks } from './ticks';

it.each([
  [0, 2.8, 4, [0, 1, 2, 3]],
  [0, 0.4, 4, [0, 0.1, 0.2, 0.3, 0.4]],
  [0, 3.7, 4, [0, 1, 2, 3, 4]],
  [0, 12.1, 4, [0, 5, 10, 15]],
  [12.4, 25.3, 5, [10, 15, 20, 25, 30]],
  [20.8, 22.2, 5, [20.5, 21, 21.5, 22, 22.5]],
  [-6.1, 21.3, 5, [-10, 0, 10, 20, 30]],
  [21, 21, 5, [21, 21.2, 21.4, 21.6, 21.8, 22]],
  [0, 0, 4, [0, 0.5, 1]],
])('from %d to %d in at most %d steps', (low, high, most, ticks) => {
  expect(axisTicks(low, high, most)).toEqual(ticks);
});
