/**
 * What a person does, in a real browser in front of the real parts: log in at the issuer's own page, see what devices publish over MQTT
 * appear, find it again after a reload, log out. And what the page says when a service fails.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, type Page, test } from '@playwright/test';
import { saveEye, shellyHt, thermIq } from './frames';
import { publish, stack } from './stack';

/** Values nobody else publishes, different in each project so that neither can pass on what the other left. */
const VALUES = {
  desktop: { watts: 40_321, shown: '40,321', counterWh: 41_230_187, celsius: 27.3, hotWater: 53, wanted: 23 },
  phone: { watts: 40_654, shown: '40,654', counterWh: 41_240_187, celsius: 26.8, hotWater: 54, wanted: 24 },
} as const;

function values(project: string): (typeof VALUES)[keyof typeof VALUES] {
  return project === 'phone' ? VALUES.phone : VALUES.desktop;
}

async function fillIn(page: Page): Promise<void> {
  await page.getByLabel('Username').fill(stack.user);
  await page.getByLabel('Password').fill(stack.password);
  await page.getByRole('button', { name: 'Log in' }).click();
}

async function logIn(page: Page): Promise<void> {
  await page.goto('/');
  await page.getByRole('button', { name: 'Log in' }).click();
  await fillIn(page);
  await expect(page.getByRole('heading', { name: 'Power' })).toBeVisible();
}

function region(page: Page, name: string) {
  return page.getByRole('region', { name, exact: true });
}

/** In both themes, where somebody asked for pictures. */
async function picture(page: Page, name: string): Promise<void> {
  const folder = process.env['SCREENSHOT_DIR'];
  if (folder === undefined || folder === '') return;
  mkdirSync(folder, { recursive: true });
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: join(folder, `${name}-${colorScheme}.png`), fullPage: true });
  }
}

test('log in, see published readings appear, find them again, log out', async ({ page }, { project }) => {
  const value = values(project.name);
  const sensor = `shellyhtg3-browser-${project.name}`;
  const complaints: string[] = [];
  const hosts = new Set<string>();
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('console', (message) => {
    if (message.type() === 'error' && message.text().includes('Content Security Policy')) complaints.push(message.text());
  });
  page.on('request', (request) => hosts.add(new URL(request.url()).hostname));

  await test.step('the login page says what it is', async () => {
    await page.goto('/');
    await expect(page.getByRole('heading', { level: 1 })).toHaveText('The house, right now');
    await picture(page, `login-${project.name}`);
  });

  await test.step('log in through the page of the OpenID provider', async () => {
    await page.getByRole('button', { name: 'Log in' }).click();
    await expect(page).not.toHaveURL(new RegExp(`^${stack.webUrl}`));
    await fillIn(page);
    await expect(page).toHaveURL(`${stack.webUrl}/`);
    await expect(page.getByRole('banner').getByRole('status')).toHaveText('Live');
  });

  await test.step('the power a meter publishes appears', async () => {
    await publish('browser-meter', 'saveeye/telemetry', saveEye(1_234, value.counterWh));
    await expect(page.getByTestId('house-power')).toContainText('1,234');
    await publish('browser-meter', 'saveeye/telemetry', saveEye(value.watts, value.counterWh + 1_500));
    await expect(page.getByTestId('house-power')).toContainText(value.shown);
    await expect(region(page, 'Power')).toContainText('from the grid');
    await expect(region(page, 'Power').getByRole('listitem')).toHaveCount(3);
  });

  await test.step('the temperature of a room appears', async () => {
    await publish(sensor, `${sensor}/events/rpc`, shellyHt(sensor, value.celsius, 44.6));
    const tile = region(page, 'Temperatures').getByRole('listitem').filter({ hasText: sensor });
    await expect(tile).toContainText(String(value.celsius));
    await expect(tile).toContainText('45 % RH');
  });

  await test.step('the heat pump and its settings appear', async () => {
    await publish('browser-pump', 'thermiq_heatpump/data', thermIq(value.hotWater, value.wanted));
    await expect(region(page, 'Heat pump')).toContainText('Heating the house');
    await expect(region(page, 'Heat pump')).toContainText(`${value.hotWater} °C`);
    await expect(region(page, 'Heat-pump settings')).toContainText(`${value.wanted} °C`);
  });

  await test.step('all of it is there after a reload, from the database, with today\'s energy and the charts', async () => {
    await expect(async () => {
      await page.reload();
      await expect(page.getByTestId('energy-total')).toHaveText(/[1-9].* kWh used/, { timeout: 3_000 });
    }).toPass();
    await expect(page.getByTestId('house-power')).toContainText(value.shown);
    await expect(region(page, 'Temperatures')).toContainText(String(value.celsius));
    await expect(region(page, 'Heat pump')).toContainText(`${value.hotWater} °C`);
    await expect(region(page, 'Heat-pump settings')).toContainText(`${value.wanted} °C`);
    await expect(page.locator('.energy-chart .recharts-bar-rectangle').first()).toBeAttached();
    await expect(page.locator('.temperature-chart .recharts-line').first()).toBeAttached();
    await expect(page.getByRole('banner').getByRole('status')).toHaveText('Live');
  });

  await test.step('nothing runs over the edge', async () => {
    const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    expect(over).toBe(0);
    await picture(page, `dashboard-${project.name}`);
  });

  await test.step('log out here and at the provider', async () => {
    await page.getByRole('button', { name: 'Log out' }).click();
    await expect(page).toHaveURL(`${stack.webUrl}/`);
    await expect(page.getByRole('heading', { level: 1 })).toHaveText('The house, right now');
    expect(await page.evaluate(() => sessionStorage.length)).toBe(0);
    await page.getByRole('button', { name: 'Log in' }).click();
    await expect(page.getByLabel('Password')).toBeVisible();
  });

  expect(complaints).toEqual([]);
  expect([...hosts]).toEqual(['127.0.0.1']);
});

test('a service that fails is named, and trying again works', async ({ page }) => {
  const address = '**/api/v1/heatpump/latest';
  await page.route(address, (route) =>
    route.fulfill({
      status: 503,
      contentType: 'application/problem+json',
      body: JSON.stringify({ type: 'about:blank', title: 'Service Unavailable', status: 503, detail: 'the database does not answer' }),
    }),
  );
  await logIn(page);
  const pump = region(page, 'Heat pump');
  await expect(pump.getByRole('alert')).toContainText('the database does not answer');
  await page.unroute(address);
  await pump.getByRole('button', { name: 'Try again' }).click();
  await expect(pump.getByRole('alert')).toHaveCount(0);
});

test('the theme is chosen with the keyboard and kept', async ({ page }) => {
  await page.goto('/');
  const light = page.getByRole('radio', { name: 'Light' });
  await page.getByRole('radio', { name: 'Auto' }).focus();
  await page.keyboard.press('ArrowRight');
  await expect(light).toBeChecked();
  await page.keyboard.press('ArrowRight');
  await expect(page.locator('html')).toHaveAttribute('data-theme', 'dark');
  await page.reload();
  await expect(page.locator('html')).toHaveAttribute('data-theme', 'dark');
  await expect(page.getByRole('radio', { name: 'Dark' })).toBeChecked();
});
