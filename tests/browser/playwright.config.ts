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

const DESKTOP = { viewport: { width: 1280, height: 900 } };
const PHONE = { viewport: { width: 360, height: 780 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true };
/** In front of the simulated house, beside each other: they only look, or have a session of their own. */
const TOGETHER = ['views.spec.ts', 'session.spec.ts', 'tabs.spec.ts', 'installed.spec.ts'];
/** They stop parts, change what devices do, or replace the build: one after the other. */
const ALONE = ['settings.spec.ts', 'plugs.spec.ts', 'network.spec.ts', 'update.spec.ts'];

const EMPTY = ['nothing, desktop', 'nothing, phone'];
const PUBLISHED = ['published, desktop', 'published, phone'];
const TESTS = [
  { name: 'nothing, desktop', testMatch: 'nothing.spec.ts', use: DESKTOP },
  { name: 'nothing, phone', testMatch: 'nothing.spec.ts', use: PHONE },
  { name: 'published, desktop', testMatch: 'published.spec.ts', use: DESKTOP, workers: 1, dependencies: EMPTY },
  { name: 'published, phone', testMatch: 'published.spec.ts', use: PHONE, workers: 1, dependencies: ['published, desktop'] },
  { name: 'the house begins', testMatch: 'house.setup.ts', dependencies: PUBLISHED },
  { name: 'desktop', testMatch: [...TOGETHER, 'live.spec.ts'], use: DESKTOP, dependencies: ['the house begins'] },
  { name: 'phone', testMatch: TOGETHER, use: PHONE, dependencies: ['the house begins'] },
  { name: 'alone, desktop', testMatch: ALONE, use: DESKTOP, workers: 1, dependencies: ['desktop', 'phone'] },
  { name: 'alone, phone', testMatch: ALONE, use: PHONE, workers: 1, dependencies: ['alone, desktop'] },
];
const BENCH = [{ name: 'bench', testMatch: 'bench.spec.ts' }];
const PICTURES = [
  { name: 'the house begins', testMatch: 'house.setup.ts' },
  { name: 'pictures', testMatch: 'screenshots.spec.ts', use: { viewport: { width: 1280, height: 900 } }, dependencies: ['the house begins'] },
];

export default defineConfig({
  testDir: '.',
  reporter: 'list',
  forbidOnly: true,
  // Much of the time is waiting for devices and for tokens to end.
  workers: 2,
  fullyParallel: true,
  // A busy machine of two cores is three times as slow as a quiet one; nothing here waits for a time, only for what is to come.
  timeout: 150_000,
  expect: { timeout: 40_000 },
  // On a machine that others use too. What passes the second time only is listed as flaky, with its trace, and is a fault to find.
  retries: 1,
  use: {
    baseURL: process.env['STACK_WEB_URL'] ?? '',
    launchOptions: { executablePath: chromium(), args: [...QUIET, ...ROOT] },
    locale: 'en-GB',
    // Not the household's: what the page shows must not depend on where its reader is.
    timezoneId: 'America/New_York',
    trace: 'retain-on-failure',
  },
  // PROJECTS=pictures is make screenshots, PROJECTS=bench make bench-web. Otherwise the tests, in this order: a house without anything, one that
  // the tests publish to, and the simulated one with a year behind it.
  projects: process.env['PROJECTS'] === 'pictures' ? PICTURES : process.env['PROJECTS'] === 'bench' ? BENCH : TESTS,
});
