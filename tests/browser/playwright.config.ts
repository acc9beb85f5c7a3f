/**
 * The browser tests: one Chromium, the system's own (CHROMIUM_PATH, else found on PATH), on a desktop and on a small phone. Nothing is ever
 * downloaded, and nothing is started from here: `stack run -- npm test` brings up what the tests talk to.
 */
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { defineConfig } from '@playwright/test';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome'];

function executable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function chromium(): string {
  const { CHROMIUM_PATH, PATH } = process.env;
  if (CHROMIUM_PATH !== undefined && CHROMIUM_PATH !== '') {
    if (!executable(CHROMIUM_PATH)) throw new Error(`CHROMIUM_PATH ${CHROMIUM_PATH} cannot be run`);
    return CHROMIUM_PATH;
  }
  const places = (PATH ?? '').split(delimiter).flatMap((folder) => NAMES.map((name) => join(folder, name)));
  const found = places.find(executable);
  if (found === undefined) throw new Error('no Chromium on PATH: install the package chromium, or set CHROMIUM_PATH');
  return found;
}

/** Quiet: no address is looked up that the page did not ask for. */
const QUIET = ['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
/** Chromium refuses its sandbox to root, as tests in a container run. */
const ROOT = process.getuid?.() === 0 ? ['--no-sandbox'] : [];

export default defineConfig({
  testDir: '.',
  testMatch: '*.spec.ts',
  reporter: 'list',
  forbidOnly: true,
  // One after the other: both projects publish to the same house.
  workers: 1,
  timeout: 90_000,
  expect: { timeout: 20_000 },
  use: {
    baseURL: process.env['STACK_WEB_URL'] ?? '',
    launchOptions: { executablePath: chromium(), args: [...QUIET, ...ROOT] },
    locale: 'en-GB',
    // Not the household's: what the page shows must not depend on where its reader is.
    timezoneId: 'America/New_York',
    trace: 'retain-on-failure',
  },
  projects: [
    { name: 'desktop', use: { viewport: { width: 1280, height: 900 }, deviceScaleFactor: 2 } },
    { name: 'phone', use: { viewport: { width: 360, height: 780 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true } },
  ],
});
