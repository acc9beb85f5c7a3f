/** What the tests do with the page again and again. */
import { expect, type Locator, type Page } from '@playwright/test';
import { type Person, stack } from './stack';

export interface View {
  readonly path: string;
  /** In the navigation. */
  readonly name: string;
  /** Of the pictures and snapshots. */
  readonly key: string;
}

export const VIEWS: readonly View[] = [
  { path: '/', name: 'Now', key: 'now' },
  { path: '/energy', name: 'Energy', key: 'energy' },
  { path: '/heatpump', name: 'Heat pump', key: 'heatpump' },
  { path: '/plugs', name: 'Plugs', key: 'plugs' },
  { path: '/devices', name: 'Devices', key: 'devices' },
];

export async function fillIn(page: Page, person: Person = stack.demo): Promise<void> {
  await page.getByLabel('Username').fill(person.name);
  await page.getByLabel('Password').fill(person.password);
  await page.getByRole('button', { name: 'Log in' }).click();
}

export async function logIn(page: Page, path = '/', person: Person = stack.demo): Promise<void> {
  await page.goto(path);
  await page.getByRole('button', { name: 'Log in' }).click();
  await fillIn(page, person);
  await expect(page.getByRole('navigation', { name: 'Pages' })).toBeVisible();
  await expect(page).toHaveURL(new URL(path, stack.webUrl).href);
}

export async function logOut(page: Page): Promise<void> {
  await page.getByRole('button', { name: 'Settings and account' }).click();
  await page.getByRole('button', { name: 'Log out' }).click();
  // Past the provider's page and back: until then the button says that one is being logged out.
  await expect(page.getByRole('button', { name: 'Log in', exact: true })).toBeEnabled();
  await expect(page).toHaveURL(`${stack.webUrl}/`);
}

export function region(page: Page, name: string): Locator {
  return page.getByRole('region', { name, exact: true });
}

/** Live, connecting, lost or ended, as the bar says it. */
export function liveState(page: Page): Locator {
  return page.getByRole('banner').getByRole('status');
}

/** What the page complains of. A place that has nothing to say yet is none. */
export function complaints(page: Page): Locator {
  return page.getByRole('main').getByRole('alert').filter({ hasText: /\S/ });
}

/** Nothing loads any more: no skeleton is left, and every font and picture is there. */
export async function settled(page: Page, within = 60_000): Promise<void> {
  await expect(page.getByRole('status', { name: 'Loading', exact: true })).toHaveCount(0, { timeout: within });
  await expect(page.getByRole('status', { name: 'Loading the chart' })).toHaveCount(0, { timeout: within });
  await page.evaluate(() => document.fonts.ready);
}

/** How many pixels the page is wider than the window. */
export async function overflow(page: Page): Promise<number> {
  return page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
}

/** The service worker looks after the page: what it keeps is there when the network is not. */
export async function workerControls(page: Page): Promise<void> {
  await page.waitForFunction(() => navigator.serviceWorker.controller !== null);
}
