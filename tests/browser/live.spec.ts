/** The page Energy follows the meter, on the live stream alone. */
import { expect, test } from '@playwright/test';
import { liveState, logIn, settled } from './page';

/** The table shows hundredths of a kilowatt-hour: at a few hundred watts one takes up to a minute and a half. */
const HUNDREDTH_WITHIN = 150_000;

test('what the meter counts changes the page Energy without asking the service again', async ({ page }) => {
  test.setTimeout(200_000);
  await logIn(page, '/energy');
  await settled(page);
  await expect(liveState(page)).toHaveText('Live');
  await page.getByText('Show as table').click();
  const running = page.getByRole('row').filter({ hasText: 'so far' }).getByRole('cell').first();
  const before = await running.textContent();
  const hour = new Date().getHours();
  const asked: string[] = [];
  page.on('request', (request) => {
    if (request.url().includes('/api/v1/energy/')) asked.push(request.url());
  });
  await expect(running).not.toHaveText(before ?? '', { timeout: HUNDREDTH_WITHIN });
  // Of an hour that began meanwhile the page knows nothing yet and asks.
  if (new Date().getHours() === hour) expect(asked).toEqual([]);
});
