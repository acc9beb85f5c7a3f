/** Changing a setting of the heat pump: confirmed by the pump, ignored by it, refused before anything is sent and refused by the service. */
import { expect, type Locator, type Page, test } from '@playwright/test';
import { logIn, region } from './page';
import { tellPump } from './stack';

/** Each size changes settings of its own, so that neither can pass on what the other did. */
const FIELDS = {
  desktop: { confirmed: 'heat_stop_c', ignored: 'curve', label: 'Curve' },
  phone: { confirmed: 'integral', ignored: 'curve_zero', label: 'Curve at 0' },
} as const;

/** Three attempts of 8 s (stack run --command-wait), and the time between them on a busy machine. */
const GIVEN_UP_WITHIN = 75_000;

test.afterEach(() => tellPump('applies'));

function field(page: Page, name: string): Locator {
  return page.locator(`[data-setting="${name}"]`);
}

function send(page: Page): Promise<void> {
  return page.getByRole('button', { name: /^Send \d+ change/ }).click();
}

/** The newest entry of what became of changes. */
function newest(page: Page): Locator {
  return region(page, 'Heat-pump settings').locator('.command').first();
}

async function reported(page: Page, name: string): Promise<number> {
  const value = field(page, name).locator('.setting-reported .value');
  await expect(value).toHaveText(/\d/);
  return Number((await value.textContent())?.match(/-?\d+/)?.[0]);
}

test('a setting is confirmed by the pump, another ignored, a third refused', async ({ page, isMobile }) => {
  test.setTimeout(180_000);
  const fields = isMobile ? FIELDS.phone : FIELDS.desktop;
  const sent: string[] = [];
  page.on('request', (request) => {
    if (request.method() === 'PATCH') sent.push(request.postData() ?? '');
  });
  await logIn(page, '/heatpump');

  await test.step('confirmed: the pump reports the new value, and only then does it count as done', async () => {
    const wanted = (await reported(page, fields.confirmed)) + 1;
    await field(page, fields.confirmed).getByRole('button', { name: /one more$/ }).click();
    await expect(field(page, fields.confirmed).getByRole('textbox')).toHaveValue(String(wanted));
    await send(page);
    await expect(page.getByRole('status').filter({ hasText: 'It is done when the pump reports the new value' })).toBeVisible();
    await expect(newest(page)).toHaveAttribute('data-status', 'confirmed');
    await expect(newest(page)).toContainText('Confirmed by the device');
    expect(await reported(page, fields.confirmed)).toBe(wanted);
    await expect(field(page, fields.confirmed).locator('.settings-wanted')).toHaveCount(0);
  });

  await test.step('refused here: the field says why, has the focus, and nothing is sent', async () => {
    const before = sent.length;
    const input = field(page, 'curve_max').getByRole('textbox');
    await input.fill('76');
    await send(page);
    await expect(field(page, 'curve_max')).toContainText('Must be from 20 °C to 75 °C.');
    await expect(input).toBeFocused();
    await expect(input).toHaveAttribute('aria-invalid', 'true');
    await input.fill('warm');
    await send(page);
    await expect(field(page, 'curve_max')).toContainText('Write a whole number.');
    await input.fill('21');
    await field(page, 'curve_min').getByRole('textbox').fill('22');
    await send(page);
    await expect(page.getByText('The curve minimum must not be above the curve maximum.').first()).toBeVisible();
    expect(sent.length).toBe(before);
    await page.getByRole('button', { name: 'Discard' }).click();
    await expect(input).toHaveValue('');
  });

  await test.step('refused by the service: its words stand at the field', async () => {
    // What the page would not let through, as another version of it might.
    const address = '**/api/v1/heatpump/settings/*';
    await page.route(address, (route) =>
      route.request().method() === 'PATCH' ? route.continue({ postData: JSON.stringify({ curve_max: 99 }) }) : route.continue(),
    );
    const before = await newest(page).getAttribute('data-command');
    await field(page, 'curve_max').getByRole('textbox').fill('56');
    await send(page);
    await expect(field(page, 'curve_max').getByRole('textbox')).toHaveAttribute('aria-invalid', 'true');
    await expect(field(page, 'curve_max').locator('.setting-fault')).toContainText('75');
    await page.unroute(address);
    await page.getByRole('button', { name: 'Discard' }).click();
    expect(await newest(page).getAttribute('data-command')).toBe(before);
  });

  await test.step('ignored: wanted beside reported while it is tried, failed with the reason at the end', async () => {
    await tellPump('ignores');
    const before = await reported(page, fields.ignored);
    await field(page, fields.ignored).getByRole('button', { name: /one more$/ }).click();
    await send(page);
    await expect(field(page, fields.ignored).locator('.settings-wanted')).toContainText('not confirmed yet');
    expect(await reported(page, fields.ignored)).toBe(before);
    await expect(newest(page)).toContainText(fields.label);
    await expect(newest(page)).toHaveAttribute('data-status', 'failed', { timeout: GIVEN_UP_WITHIN });
    await expect(newest(page)).toContainText('The device was told three times and never reported the value.');
    await expect(field(page, fields.ignored).locator('.settings-wanted')).toHaveCount(0);
    expect(await reported(page, fields.ignored)).toBe(before);
  });
});
