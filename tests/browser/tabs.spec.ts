/** Several tabs of one browser: a second one need not log in, and a log-out reaches them all. */
import { expect, test } from '@playwright/test';
import { liveState, logIn, logOut } from './page';

test('a second tab takes part in the session, and logging out ends it in both', async ({ page, context }) => {
  await logIn(page);
  const second = await context.newPage();
  await second.goto('/heatpump');
  await expect(liveState(second)).toHaveText('Live');
  await second.locator('[data-setting="indoor_target_c"]').getByRole('textbox').fill('22');

  await logOut(page);
  for (const tab of [page, second]) {
    await expect(tab.getByRole('heading', { level: 1 })).toHaveText('The house, right now');
    await expect.poll(() => tab.evaluate(() => sessionStorage.length)).toBe(0);
  }
  // No way back: neither by the history nor by asking again.
  await page.goBack();
  await expect(page.getByRole('navigation', { name: 'Pages' })).toHaveCount(0);
  await second.reload();
  await expect(second.getByRole('button', { name: 'Log in' })).toBeVisible();
  const third = await context.newPage();
  await third.goto('/');
  await expect(third.getByRole('button', { name: 'Log in' })).toBeVisible();
});
