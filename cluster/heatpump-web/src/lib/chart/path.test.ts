import { expect, it } from 'vitest';
import { linePath } from './path';

const scale = { x: (time: number) => time, y: (value: number) => 100 - value };

it('draws no line over what is not known, and a dot for a value on its own', () => {
  const points = [10, 11, null, 13, null, 15, 16].map((value, time) => ({ time, value }));
  expect(linePath(points, scale)).toBe('M0.0 90.0l0 0L1.0 89.0M3.0 87.0l0 0M5.0 85.0l0 0L6.0 84.0');
});
