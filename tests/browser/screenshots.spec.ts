/** `make screenshots`: every view, phone and desktop, light and dark, into docs/images. Whoever changes a view looks at them. */
import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, type Page, test } from '@playwright/test';
import { complaints, liveState, logIn, overflow, settled, VIEWS } from './page';

const FOLDER = process.env['SCREENSHOT_DIR'] ?? fileURLToPath(new URL('../../docs/images/', import.meta.url));
const WIDTHS = [
  { size: 'phone', width: 360, height: 780 },
  { size: 'tablet', width: 768, height: 1024 },
  { size: 'desktop', width: 1280, height: 900 },
] as const;
/** The tablet is looked at and measured, not kept. */
const KEPT = process.env['SCREENSHOT_DIR'] === undefined ? ['phone', 'desktop'] : ['phone', 'tablet', 'desktop'];

async function pictures(page: Page, key: string): Promise<void> {
  for (const { size, width, height } of WIDTHS) {
    await page.setViewportSize({ width, height });
    await settled(page);
    expect(await overflow(page), `${key} at ${width} px`).toBe(0);
    if (!KEPT.includes(size)) continue;
    // As high as the page: what stays at an edge of the window is at the page's end then, over nothing.
    const whole = await page.evaluate(() => document.documentElement.scrollHeight);
    await page.setViewportSize({ width, height: Math.max(whole, height) });
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      await page.screenshot({ path: `${FOLDER}/${key}-${size}-${colorScheme}.png`, animations: 'disabled', caret: 'hide' });
    }
  }
}

test('pictures of every view', async ({ page }) => {
  test.setTimeout(300_000);
  mkdirSync(FOLDER, { recursive: true });
  await page.goto('/');
  await expect(page.getByRole('button', { name: 'Log in' })).toBeVisible();
  await pictures(page, 'login');
  await logIn(page);
  for (const { name, key } of VIEWS) {
    await page.getByRole('link', { name, exact: true }).click();
    await expect(page.getByRole('heading', { level: 1 })).toHaveText(name);
    await expect(liveState(page)).toHaveText('Live');
    if (key === 'energy') await page.getByRole('radio', { name: 'Month' }).click();
    // A plug's power comes with its next report.
    if (key === 'plugs') await expect(page.locator('.plug-power .value')).toHaveCount(2);
    await settled(page);
    await expect(complaints(page)).toHaveCount(0);
    await pictures(page, key);
  }
});
