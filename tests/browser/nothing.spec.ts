/** A house from which nothing has come yet: every view says so, in words, and none is broken or empty. */
import { expect, test } from '@playwright/test';
import { complaints, logIn, overflow, settled, VIEWS } from './page';

const SAYS: Readonly<Record<string, readonly string[]>> = {
  now: [
    'No meter has sent a reading yet.',
    'No energy has been counted today.',
    'No temperature sensor has reported yet.',
    'No heat pump has reported yet.',
  ],
  energy: ['No energy has been counted in this period.'],
  heatpump: ['No heat pump has reported yet.', 'The heat pump has not reported its settings yet.'],
  plugs: ['No plug has reported yet.'],
  devices: ['No device has reported anything yet.', 'Nothing was lost and no device came or went.'],
};

test('without any data every view says what is missing', async ({ page }) => {
  await logIn(page);
  for (const { name, key } of VIEWS) {
    await test.step(name, async () => {
      await page.getByRole('link', { name, exact: true }).click();
      await settled(page);
      for (const text of SAYS[key] ?? []) await expect(page.getByRole('main')).toContainText(text);
      await expect(complaints(page)).toHaveCount(0);
      expect(await overflow(page)).toBe(0);
    });
  }
});
