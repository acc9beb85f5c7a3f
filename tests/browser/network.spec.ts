/** What the page says while the network or a service is away, and that nothing is missing afterwards. */
import { expect, type Page, test } from '@playwright/test';
import { shellyHt } from './frames';
import { liveState, logIn, region } from './page';
import { publish, startPart, stopPart } from './stack';

/** The page tries again after 15 s at the latest; a restarted service needs its own time. */
const BACK_WITHIN = 45_000;

const OFFLINE = 'This device has no network.';

async function send(sensor: string, celsius: number): Promise<void> {
  await publish(sensor, `${sensor}/events/rpc`, shellyHt(sensor, celsius, 44));
}

function tile(page: Page, sensor: string) {
  return region(page, 'Temperatures').getByRole('listitem').filter({ hasText: sensor });
}

/** Every reading of a sensor, as the table under the chart has them. */
async function expectInTable(page: Page, sensor: string, readings: readonly string[]): Promise<void> {
  const temperatures = region(page, 'Temperatures');
  if ((await temperatures.getByRole('table').count()) === 0) await temperatures.getByText('Show as table').click();
  for (const reading of readings) await expect(temperatures.getByRole('row').filter({ hasText: sensor }).filter({ hasText: reading })).toHaveCount(1);
}

test('the network goes and comes back: said at once, and what was missed is there once', async ({ page, context, isMobile }) => {
  const sensor = `shellyhtg3-away-${isMobile ? 'phone' : 'desktop'}`;
  await logIn(page);
  await send(sensor, 11.1);
  await expect(tile(page, sensor)).toContainText('11.1');
  await context.setOffline(true);
  await expect(page.getByText(OFFLINE)).toBeVisible();
  await expect(liveState(page)).toContainText('Connection lost', { timeout: BACK_WITHIN });
  await send(sensor, 12.2);
  await send(sensor, 13.3);
  await expect(tile(page, sensor)).toContainText('11.1');
  await context.setOffline(false);
  await expect(page.getByText(OFFLINE)).toHaveCount(0);
  await expect(liveState(page)).toHaveText('Live', { timeout: BACK_WITHIN });
  await expect(tile(page, sensor)).toContainText('13.3');
  await expectInTable(page, sensor, ['11.1', '12.2', '13.3']);
});

test('the live service restarts: the page finds it again and makes up for the time between', async ({ page, isMobile }) => {
  const sensor = `shellyhtg3-restart-${isMobile ? 'phone' : 'desktop'}`;
  await logIn(page);
  await send(sensor, 14.4);
  await expect(tile(page, sensor)).toContainText('14.4');
  try {
    await stopPart('energy-ws');
    await expect(liveState(page)).toContainText('Connection lost', { timeout: BACK_WITHIN });
    await send(sensor, 15.5);
    await expect(tile(page, sensor)).toContainText('14.4');
  } finally {
    await startPart('energy-ws');
  }
  await send(sensor, 16.6);
  await expect(liveState(page)).toHaveText('Live', { timeout: BACK_WITHIN });
  await expect(tile(page, sensor)).toContainText('16.6');
  await expectInTable(page, sensor, ['14.4', '15.5', '16.6']);
});

test('the read API is away: the view says so, and trying again works when it is back', async ({ page }) => {
  await logIn(page);
  try {
    await stopPart('homelab-api');
    await page.getByRole('link', { name: 'Devices', exact: true }).click();
    await expect(page.getByRole('main').getByRole('alert').first()).toContainText('This could not be loaded', { timeout: BACK_WITHIN });
  } finally {
    await startPart('homelab-api');
  }
  await page.getByRole('main').getByRole('button', { name: 'Try again' }).first().click();
  await expect(page.getByRole('list', { name: 'Devices and what was last heard of them' }).getByRole('listitem').first()).toBeVisible({ timeout: BACK_WITHIN });
});
