/**
 * What a person does, in a real browser in front of the real parts: log in at the issuer's own page, see what devices publish over MQTT
 * appear, find it again after a reload, log out. And what the page says when a service fails.
 */
import { expect, test } from '@playwright/test';
import { saveEye, shellyHt, thermIq } from './frames';
import { fillIn, liveState, logIn, logOut, overflow, region } from './page';
import { publish, stack } from './stack';

/** Values nobody else publishes, different in each project so that neither can pass on what the other left. */
const VALUES = {
  desktop: { watts: 40_321, shown: '40,321', counterWh: 41_230_187, celsius: 27.3, hotWater: 53, wanted: 23 },
  phone: { watts: 40_654, shown: '40,654', counterWh: 41_240_187, celsius: 26.8, hotWater: 54, wanted: 24 },
} as const;

test('log in, see published readings appear, find them again, log out', async ({ page, isMobile }) => {
  const size = isMobile ? 'phone' : 'desktop';
  const value = VALUES[size];
  const sensor = `shellyhtg3-browser-${size}`;
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
  });

  await test.step('log in through the page of the OpenID provider', async () => {
    await page.getByRole('button', { name: 'Log in' }).click();
    await expect(page).not.toHaveURL(new RegExp(`^${stack.webUrl}`));
    await fillIn(page);
    await expect(page).toHaveURL(`${stack.webUrl}/`);
    await expect(liveState(page)).toHaveText('Live');
  });

  await test.step('the power a meter publishes appears', async () => {
    await publish(stack.meter, 'saveeye/telemetry', saveEye(stack.meter, 1_234, value.counterWh));
    await expect(page.getByTestId('house-power')).toContainText('1,234');
    await publish(stack.meter, 'saveeye/telemetry', saveEye(stack.meter, value.watts, value.counterWh + 1_500));
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
    await publish(stack.pump, 'thermiq_heatpump/data', thermIq(stack.pump, value.hotWater, value.wanted));
    await expect(region(page, 'Heat pump')).toContainText('Heating the house');
    await expect(region(page, 'Heat pump')).toContainText(`${value.hotWater} °C`);
    await page.getByRole('link', { name: 'History and settings' }).click();
    await expect(region(page, 'Heat-pump settings')).toContainText(`${value.wanted} °C`);
    await page.getByRole('link', { name: 'Now', exact: true }).click();
  });

  await test.step('all of it is there after a reload, from the database, with today\'s energy and the charts', async () => {
    await expect(async () => {
      await page.reload();
      await expect(page.getByTestId('energy-total')).toHaveText(/[1-9].* kWh used/, { timeout: 3_000 });
    }).toPass();
    await expect(page.getByTestId('house-power')).toContainText(value.shown);
    await expect(region(page, 'Temperatures')).toContainText(String(value.celsius));
    await expect(region(page, 'Heat pump')).toContainText(`${value.hotWater} °C`);
    await expect(page.locator('.energy .energy-bar').first()).toBeAttached();
    await expect(page.locator('.temperature .plot-series').first()).toBeAttached();
    await expect(liveState(page)).toHaveText('Live');
  });

  await test.step('nothing runs over the edge', async () => {
    expect(await overflow(page)).toBe(0);
  });

  await test.step('log out here and at the provider', async () => {
    await logOut(page);
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
  const theme = page.getByRole('group', { name: 'Theme' });
  const light = theme.getByRole('radio', { name: 'Light' });
  await theme.getByRole('radio', { name: 'Auto' }).focus();
  await page.keyboard.press('ArrowRight');
  await expect(light).toBeChecked();
  await page.keyboard.press('ArrowRight');
  await expect(page.locator('html')).toHaveAttribute('data-theme', 'dark');
  await page.reload();
  await expect(page.locator('html')).toHaveAttribute('data-theme', 'dark');
  await expect(page.getByRole('radio', { name: 'Dark' })).toBeChecked();
});
