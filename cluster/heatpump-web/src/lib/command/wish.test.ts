import { expect, it } from 'vitest';
import { Wish } from './wish';

it('keeps its key until the body changes or an answer came', () => {
  const wish = new Wish();
  const first = wish.key({ on: true });
  expect(wish.key({ on: true })).toBe(first);
  const other = wish.key({ on: false });
  expect(other).not.toBe(first);
  wish.answered();
  expect(wish.key({ on: false })).not.toBe(other);
});
