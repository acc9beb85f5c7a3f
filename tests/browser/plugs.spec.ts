/** Switching a plug, and its schedules. */
import { expect, type Page, test } from '@playwright/test';
import { logIn } from './page';
import { stack, tellPlugs } from './stack';

test.afterEach(() => tellPlugs('applies'));

/** Each size has a plug of its own: a Tasmota and a Shelly. */
function plugOf(isMobile: boolean): string {
  return stack.plugs[isMobile ? 1 : 0] ?? '';
}

function card(page: Page, plug: string) {
  return page.locator('.plug-card').filter({ has: page.locator(`[data-plug="${plug}"]`) });
}

test('a plug is switched off and on, and shows what it reported', async ({ page, isMobile }) => {
  const plug = plugOf(isMobile);
  await logIn(page, '/plugs');
  const now = page.locator(`[data-plug="${plug}"]`);
  await expect(now).toHaveAttribute('data-state', 'on');
  await expect(now.locator('.plug-power .value')).toHaveText(/\d/);

  await test.step('off: the state changes when the plug says so', async () => {
    await now.getByRole('button', { name: /off$/ }).click();
    await expect(now).toHaveAttribute('data-state', 'off');
    await expect(card(page, plug).locator('.command').first()).toHaveAttribute('data-status', 'confirmed');
    await expect(now.locator('.plug-power .value')).toHaveText('0');
  });

  await test.step('told and not heard: the state stays, the wish stands beside it', async () => {
    await tellPlugs('ignores');
    await now.getByRole('button', { name: /on$/ }).click();
    await expect(now.locator('.plug-wanted')).toHaveText('Wanted: on, not confirmed yet');
    await expect(now).toHaveAttribute('data-state', 'off');
    await tellPlugs('applies');
    // The next attempt of the same wish.
    await expect(now).toHaveAttribute('data-state', 'on', { timeout: 40_000 });
    await expect(card(page, plug).locator('.command').first()).toHaveAttribute('data-status', 'confirmed');
    await expect(now.locator('.plug-wanted')).toHaveText('');
  });
});

test('a schedule is made, changed and deleted', async ({ page, isMobile }) => {
  await logIn(page, '/plugs');
  const mine = card(page, plugOf(isMobile));
  await expect(mine.getByText('No schedule yet.')).toBeVisible();
  await mine.getByRole('button', { name: 'Add a schedule' }).click();
  for (const day of await mine.getByRole('checkbox').all()) await day.setChecked(false);
  await mine.getByRole('button', { name: 'Save' }).click();
  await expect(mine.getByText('Choose at least one day.')).toBeVisible();
  await mine.getByRole('checkbox', { name: 'Monday' }).setChecked(true);
  await mine.getByLabel('Time', { exact: true }).fill('06:30');
  await mine.getByRole('button', { name: 'Save' }).click();
  const entry = mine.getByRole('listitem').filter({ hasText: '06:30' });
  await expect(entry).toContainText('Next:');
  await entry.getByRole('button', { name: /Edit/ }).click();
  await mine.getByLabel('Time', { exact: true }).fill('07:15');
  await mine.getByRole('button', { name: 'Save' }).click();
  const changed = mine.getByRole('listitem').filter({ hasText: '07:15' });
  await expect(changed).toBeVisible();
  await expect(entry).toHaveCount(0);
  await page.reload();
  await changed.getByRole('button', { name: /Delete/ }).click();
  await mine.getByRole('button', { name: /Delete/ }).last().click();
  await expect(changed).toHaveCount(0);
  await expect(mine.getByText('No schedule yet.')).toBeVisible();
});
