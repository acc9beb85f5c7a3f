/** The simulated house begins, with a year behind it. The tests after it share it. */
import { expect, test } from '@playwright/test';
import { logIn } from './page';
import { beginHouse } from './stack';

/** The 26 hours of the usual history are added to these. */
const YEAR = 365;

test('a year of the simulated house reaches the database', async ({ page }) => {
  test.setTimeout(480_000);
  await beginHouse(YEAR);
  await logIn(page, '/energy?span=year&compare=none');
  // The oldest month is written first, the running one last; the sink takes them in the order of the topics.
  await expect(async () => {
    await page.reload();
    await expect(page.locator('.energy-bar')).not.toHaveCount(0, { timeout: 5_000 });
  }).toPass({ timeout: 300_000 });
});
