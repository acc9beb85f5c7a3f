/** A new build of the page is put in the place of the old one: it is offered, and taken when the person says so. */
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from '@playwright/test';
import { workerControls } from './page';

/** What the stack serves: the built page. Its worker names every file of a build, so another build is another worker. */
const WORKER = new URL('../../cluster/heatpump-web/dist/service-worker.js', import.meta.url);

test('a new version waits until it is taken, and every tab begins again with it', async ({ page, context }) => {
  const before = readFileSync(WORKER, 'utf8');
  await page.goto('/');
  await workerControls(page);
  const other = await context.newPage();
  await other.goto('/');
  await workerControls(other);
  try {
    appendFileSync(WORKER, `\n// Another build, ${Date.now()}.\n`);
    await page.reload();
    const prompt = page.getByRole('status').filter({ hasText: 'A new version of this page is ready.' });
    await expect(prompt).toBeVisible();
    // It is offered again after a reload, and not taken by it.
    await page.reload();
    await expect(prompt).toBeVisible();
    const loaded = Promise.all([page.waitForEvent('load'), other.waitForEvent('load')]);
    await prompt.getByRole('button', { name: 'Use it now' }).click();
    await loaded;
    await workerControls(page);
    await expect(page.getByRole('heading', { level: 1 })).toHaveText('The house, right now');
    await expect(prompt).toHaveCount(0);
    await expect(other.getByText('A new version of this page is ready.')).toHaveCount(0);
  } finally {
    writeFileSync(WORKER, before);
  }
});
