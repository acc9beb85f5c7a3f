/** Vitest covers logic only; what a person sees is covered by tests/browser in a real Chromium. */
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    environment: 'node',
    include: ['src/**/*.test.ts'],
    // A machine zone that is never the household's: a test that forgets to name a zone fails.
    env: { TZ: 'America/St_Johns' },
  },
});
