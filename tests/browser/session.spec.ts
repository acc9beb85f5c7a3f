/** The session in the browser: silent renewal, its end with a form half filled in, and what an account without a permission is told. */
import { expect, type Page, test } from '@playwright/test';
import { complaints, fillIn, liveState, logIn, VIEWS } from './page';
import { stack } from './stack';

/** Tokens of the person `brief` last 20 s and are renewed in their last third. */
const TOKEN_MS = 20_000;

interface StoredUser {
  readonly access_token: string;
  readonly refresh_token: string;
}

async function storedUser(page: Page): Promise<StoredUser> {
  const text = await page.evaluate(() => sessionStorage.getItem(Object.keys(sessionStorage).find((key) => key.startsWith('oidc.user:')) ?? ''));
  return JSON.parse(text ?? 'null') as StoredUser;
}

test('tokens are renewed silently, once for all tabs, and the connection outlives the first token', async ({ page, context }) => {
  const refreshed: string[] = [];
  context.on('request', (request) => {
    const sent = request.postData() ?? '';
    if (request.url().startsWith(`${stack.issuerUrl}/token`) && sent.includes('grant_type=refresh_token')) refreshed.push(sent);
  });
  const prolonged: string[] = [];
  const closed: string[] = [];
  page.on('websocket', (socket) => {
    socket.on('framesent', ({ payload }) => {
      if (String(payload).includes('"authenticate"')) prolonged.push(String(payload));
    });
    socket.on('close', () => closed.push(socket.url()));
  });
  await logIn(page, '/', stack.brief);
  await expect(liveState(page)).toHaveText('Live');
  const first = await storedUser(page);

  const second = await context.newPage();
  await second.goto('/');
  await expect(liveState(second)).toHaveText('Live');

  await expect(async () => {
    expect((await storedUser(page)).access_token).not.toBe(first.access_token);
  }).toPass({ timeout: 2 * TOKEN_MS });
  await expect.poll(() => prolonged.length, { timeout: TOKEN_MS }).toBeGreaterThan(0);
  // Past the first token's end on both pages, on the connection of the beginning.
  await page.waitForTimeout(TOKEN_MS / 2);
  for (const tab of [page, second]) {
    await expect(liveState(tab)).toHaveText('Live');
    await expect(tab.getByText('Your session has ended')).toHaveCount(0);
  }
  expect(closed).toEqual([]);
  // A refresh token serves once: none was sent twice.
  expect(new Set(refreshed).size).toBe(refreshed.length);
});

test('a session that ends keeps the page and what was typed; after logging in it is still there', async ({ page }) => {
  await logIn(page, '/heatpump', stack.brief);
  const input = page.locator('[data-setting="indoor_target_c"]').getByRole('textbox');
  await input.fill('22');
  const { refresh_token } = await storedUser(page);
  const revoked = await fetch(`${stack.issuerUrl}/token/revocation`, {
    method: 'POST',
    body: new URLSearchParams({ client_id: 'heatpump-web', token: refresh_token, token_type_hint: 'refresh_token' }),
  });
  expect(revoked.ok).toBe(true);
  const notice = page.getByRole('alert').filter({ hasText: 'Your session has ended.' });
  await expect(notice).toBeVisible({ timeout: 3 * TOKEN_MS });
  await expect(liveState(page)).toHaveText('Session ended', { timeout: 3 * TOKEN_MS });
  await expect(input).toHaveValue('22');
  await page.getByRole('button', { name: 'Send 1 change' }).click();
  await expect(page.getByText('Your session has ended, so nothing was sent. Log in again: what you wrote is kept.')).toBeVisible();
  await notice.getByRole('button', { name: 'Log in' }).click();
  // The provider still knows the person; where it does not, it asks.
  await expect(page.getByLabel('Username').or(input)).toBeVisible();
  if (await page.getByLabel('Username').isVisible()) await fillIn(page, stack.brief);
  await expect(page).toHaveURL(`${stack.webUrl}/heatpump`);
  await expect(input).toHaveValue('22');
  await expect(liveState(page)).toHaveText('Live');
  await page.getByRole('button', { name: 'Discard' }).click();
});

test('what an account lacks the permission for is explained in its place, and never asked for', async ({ page }) => {
  const refused: string[] = [];
  page.on('response', (response) => {
    if (response.status() === 401 || response.status() === 403) refused.push(response.url());
  });
  await logIn(page, '/', stack.guest);
  await expect(page.getByTestId('house-power')).toContainText(/\d/);
  await expect(page.getByRole('region', { name: 'Temperatures' }).getByRole('listitem').first()).toBeVisible();
  const lacking: Readonly<Record<string, readonly string[]>> = {
    now: ['read:heatpump'],
    energy: [],
    heatpump: ['read:heatpump', 'read:settings'],
    plugs: ['read:plugs'],
    devices: [],
  };
  for (const { name, key } of VIEWS) {
    await page.getByRole('link', { name, exact: true }).click();
    const scopes = lacking[key] ?? [];
    for (const scope of scopes) await expect(page.locator(`[data-scope="${scope}"]`)).toContainText(`Your account lacks the permission ${scope}.`);
    await expect(page.locator('[data-scope]')).toHaveCount(scopes.length);
    await expect(complaints(page)).toHaveCount(0);
  }
  await expect(page.getByRole('list', { name: 'Devices and what was last heard of them' })).not.toContainText('Heat pump');
  expect(refused).toEqual([]);
});
