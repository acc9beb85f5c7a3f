/**
 * Every view in front of the simulated house with a year behind it: what it shows, without a fault for assistive technology in either theme
 * (axe, contrast included), with the structure its ARIA snapshot names, and nothing wider than the window.
 */
import { readFileSync } from 'node:fs';
import { AxeBuilder } from '@axe-core/playwright';
import { expect, type Page, test } from '@playwright/test';
import { complaints, liveState, logIn, overflow, region, settled, VIEWS } from './page';

async function expectAccessible(page: Page, what: string): Promise<void> {
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme });
    // Every rule in light; in dark those that colours can break, for the rest of the page is the same.
    const axe = colorScheme === 'light' ? new AxeBuilder({ page }) : new AxeBuilder({ page }).withRules(['color-contrast', 'link-in-text-block']);
    // What a chart draws is hidden from assistive technology; its words and its table are not.
    const { violations, passes } = await axe.exclude('.plot > svg').analyze();
    const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target, failureSummary }) => `${target.join(' ')} ${failureSummary ?? ''}`).join('; ')}`);
    expect(found, `${what}, ${colorScheme}`).toEqual([]);
    expect(passes.some(({ id }) => id === 'color-contrast')).toBe(true);
  }
}

/** The policy is the real one: what it stops is a fault of the page. */
function watchPolicy(page: Page): readonly string[] {
  const stopped: string[] = [];
  page.on('pageerror', (error) => stopped.push(error.message));
  page.on('console', (message) => {
    if (message.type() === 'error' && /Content Security Policy|Trusted/.test(message.text())) stopped.push(message.text());
  });
  return stopped;
}

for (const { name, path, key } of VIEWS) {
  test(`${name}: its data, its structure, and no fault for assistive technology`, async ({ page }) => {
    test.setTimeout(120_000);
    const stopped = watchPolicy(page);
    await logIn(page, path);
    await expect(page.getByRole('heading', { level: 1 })).toHaveText(name);
    await settled(page);
    await expect(liveState(page)).toHaveText('Live');
    await expect(complaints(page)).toHaveCount(0);
    await HAS[key]?.(page);
    await expect(page.locator('.shell')).toMatchAriaSnapshot({ name: `${key}.aria.yml` });
    expect(await overflow(page), `${name} is wider than the window`).toBe(0);
    await expectAccessible(page, name);
    expect(stopped).toEqual([]);
  });
}

test('the login page and the menu: their structure, and no fault for assistive technology', async ({ page }) => {
  test.setTimeout(120_000);
  await page.goto('/');
  await expect(page.getByRole('button', { name: 'Log in' })).toBeVisible();
  await expect(page.getByRole('main')).toMatchAriaSnapshot({ name: 'login.aria.yml' });
  await expectAccessible(page, 'login');
  await logIn(page, '/devices');
  await page.getByRole('button', { name: 'Settings and account' }).click();
  await expect(page.getByRole('dialog')).toMatchAriaSnapshot({ name: 'menu.aria.yml' });
  await expectAccessible(page, 'menu');
});

const NUMBER = /\d/;

/** The data of each view, as a person would look for it. */
const HAS: Readonly<Record<string, (page: Page) => Promise<void>>> = {
  now: async (page) => {
    const power = region(page, 'Power');
    await expect(page.getByTestId('house-power')).toHaveText(NUMBER);
    await expect(power).toContainText('from the grid');
    await expect(power.getByRole('list').getByRole('listitem')).toHaveCount(3);
    const hour = page.getByTestId('running-hour');
    for (const other of ['Same hour yesterday', 'A week ago']) {
      await expect(hour.locator('div').filter({ hasText: other })).toContainText(/\d+\.\d\d kWh/);
    }
    for (const room of ['bedroom', 'living room', 'bathroom', 'hall']) {
      const tile = region(page, 'Temperatures').getByRole('listitem').filter({ hasText: room });
      await expect(tile).toContainText(/\d+\.\d °C/);
      await expect(tile.locator('time')).toHaveText(/now|ago/);
    }
    await expect(region(page, 'Temperatures').locator('path.plot-series')).not.toHaveCount(0);
    await expect(region(page, 'Heat pump').locator('.pump-activity')).not.toHaveText('State not reported');
    await expect(page.getByRole('link', { name: 'History and settings' })).toHaveAttribute('href', '/heatpump');
  },
  energy: async (page) => {
    await expect(page.locator('.energy-bar')).not.toHaveCount(0);
    await expect(page.getByTestId('period-used')).toContainText(/\d kWh/);
  },
  heatpump: async (page) => {
    const history = region(page, 'Over time');
    for (const band of ['compressor', 'hotWater']) await expect(history.locator(`rect.band-${band}`)).not.toHaveCount(0);
    await expect(history.locator('path.history-line')).not.toHaveCount(0);
    await expect(history).toContainText(/Outdoors .* °C, indoors .* Compressor .* h/);
    await expect(history).toContainText(/h of compressor and \d+ starts in \d+ days/);
    await expect(page.locator('[data-setting="indoor_target_c"] .setting-reported')).toContainText('°C');
  },
  plugs: async (page) => {
    await expect(page.locator('.plug-card')).toHaveCount(2);
    for (const card of await page.locator('.plug-card').all()) {
      await expect(card.locator('.plug-power .value')).toHaveText(NUMBER);
      await expect(card).toContainText(/kWh used, on for/);
    }
  },
  devices: async (page) => {
    const list = page.getByRole('list', { name: 'Devices and what was last heard of them' });
    await expect(list.getByRole('listitem').filter({ hasText: 'Heat pump' })).toContainText(/Last seen.*(now|ago)/s);
    await expect(list.getByRole('listitem').filter({ hasText: 'bedroom' })).toContainText(/Battery.*%.*Signal.*dBm/s);
  },
};

/** Kilowatt-hours of the column Used, all rows of the table on the page Energy. */
async function used(page: Page): Promise<readonly number[]> {
  if ((await page.getByRole('table').count()) === 0) await page.getByText('Show as table').click();
  const column = page.getByRole('table').locator('tbody tr td:nth-of-type(1)');
  await expect(column.first()).toBeVisible();
  const cells = await column.allTextContents();
  return cells.map((cell) => Number(cell.replace(/[^\d.-]/g, ''))).filter((value) => !Number.isNaN(value));
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

test('a year of energy: months that add up to it, compared, as a table and as a file', async ({ page }) => {
  test.setTimeout(240_000);
  await logIn(page, '/energy?span=year');
  await settled(page);
  const months = await used(page);
  expect(months.filter((kwh) => kwh > 0).length).toBeGreaterThan(new Date().getMonth());
  await expect(page.getByTestId('period-used')).toContainText(/\d/);

  await test.step('a month of it is the sum of its days', async () => {
    await page.getByRole('radio', { name: 'Month', exact: true }).click();
    await page.getByRole('button', { name: 'Earlier', exact: true }).first().click();
    await settled(page);
    await expect(page.locator('.energy-bar').nth(27)).toBeAttached();
    const days = await used(page);
    expect(days.length).toBeGreaterThanOrEqual(28);
    // Last month of the year's table; in January it is another year's.
    const month = new Date().getMonth();
    if (month > 0) expect(Math.abs(sum(days) - (months[month - 1] ?? 0))).toBeLessThan(0.05 * days.length);
  });

  await test.step('the period before is drawn beside it', async () => {
    await page.getByLabel('Compare with').selectOption({ label: 'The period before' });
    await expect(page.locator('.chart-legend')).toContainText('The period before');
    await settled(page);
  });

  await test.step('the file has what the table has', async () => {
    const download = page.waitForEvent('download');
    await page.getByRole('button', { name: 'Download CSV' }).click();
    const file = await download;
    expect(file.suggestedFilename()).toMatch(/^energy-\d{4}-\d\d-01-\d{4}-\d\d-\d\d\.csv$/);
    const [head, ...rows] = readFileSync(await file.path(), 'utf8').trim().split(/\r?\n/);
    expect(head).toContain('energy_kwh');
    expect(rows.length).toBeGreaterThanOrEqual(28);
  });

  for (const span of ['Day', 'Week', 'Year']) {
    await test.step(span, async () => {
      await page.getByRole('radio', { name: span, exact: true }).click();
      await settled(page);
      await expect(page.locator('.energy-bar')).not.toHaveCount(0);
      expect(await overflow(page)).toBe(0);
    });
  }
});

/** The stack's database has no TimescaleDB: a year is summed up from its readings, which takes a busy machine its time. */
const A_YEAR_WITHIN = 75_000;

test('a year of the heat pump: drawn, zoomed with the keyboard, and read as a table', async ({ page }) => {
  test.setTimeout(240_000);
  await logIn(page, '/heatpump');
  const history = region(page, 'Over time');
  await history.getByRole('radio', { name: '12 months' }).click();
  await settled(page, A_YEAR_WITHIN);
  const chart = history.getByRole('figure').first();
  await expect(chart.locator('path.history-line')).not.toHaveCount(0, { timeout: A_YEAR_WITHIN });
  const whole = await chart.locator('.chart-summary').textContent();
  await chart.getByRole('button', { name: 'Zoom in' }).focus();
  await page.keyboard.press('+');
  await page.keyboard.press('ArrowLeft');
  await expect(chart.locator('.chart-summary')).not.toHaveText(whole ?? '');
  await page.keyboard.press('0');
  await expect(chart.locator('.chart-summary')).toHaveText(whole ?? '');
  await chart.getByText('Show as table').click();
  await expect(chart.getByRole('row')).not.toHaveCount(0);
  await expect(history).toContainText(/in 3\d\d days/, { timeout: A_YEAR_WITHIN });
  expect(await overflow(page)).toBe(0);
});
