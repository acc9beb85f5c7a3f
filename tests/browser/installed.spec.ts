/** The page as an app: installable, offline as far as its shell, never keeping an answer or a token. And its headers. */
import { readFileSync } from 'node:fs';
import { expect, type Page, type Route, test } from '@playwright/test';
import { liveState, logIn, workerControls } from './page';
import { stack } from './stack';

const WEB = new URL('../../cluster/heatpump-web/', import.meta.url);

/** Addresses and bodies of everything the browser keeps of the page. */
async function kept(page: Page): Promise<readonly { readonly address: string; readonly body: string }[]> {
  return page.evaluate(async () => {
    const found = [];
    for (const name of await caches.keys()) {
      const cache = await caches.open(name);
      for (const request of await cache.keys()) {
        const answer = await cache.match(request);
        found.push({ address: request.url, body: (await answer?.text()) ?? '' });
      }
    }
    return found;
  });
}

async function keepsConfiguration(page: Page): Promise<boolean> {
  return (await kept(page)).some(({ address }) => address.endsWith('/config.json'));
}

test('the page can be installed', async ({ page, request }) => {
  await page.goto('/');
  const address = await page.locator('link[rel="manifest"]').getAttribute('href');
  const manifest = (await (await request.get(address ?? '')).json()) as {
    readonly name: string;
    readonly display: string;
    readonly start_url: string;
    readonly icons: readonly { readonly src: string; readonly sizes: string; readonly type: string; readonly purpose: string }[];
  };
  expect(manifest).toMatchObject({ name: 'Homelab', display: 'standalone', start_url: '/' });
  expect(manifest.icons.filter(({ type }) => type === 'image/png').map(({ sizes, purpose }) => `${sizes} ${purpose}`)).toEqual([
    '192x192 any',
    '512x512 any',
    '512x512 maskable',
  ]);
  for (const icon of manifest.icons) {
    const answer = await request.get(icon.src);
    expect(answer.headers()['content-type']).toBe(icon.type);
  }
  // Chromium's own judgement.
  const session = await page.context().newCDPSession(page);
  await workerControls(page);
  const { installabilityErrors } = await session.send('Page.getInstallabilityErrors');
  // Tests run in a profile without history, where nothing can be installed.
  expect(installabilityErrors.filter(({ errorId }) => errorId !== 'in-incognito')).toEqual([]);
});

test('the configuration is kept also when the worker takes over a page that is still loading', async ({ context }) => {
  const page = await context.newPage();
  const held: Route[] = [];
  // An image that does not come keeps the page from being loaded, long after its script has run and fetched the configuration.
  await page.route('**/icon-180.png?held', (route) => {
    held.push(route);
  });
  await page.addInitScript(() => {
    document.addEventListener('DOMContentLoaded', () => {
      const image = document.createElement('img');
      image.src = '/icon-180.png?held';
      document.body.append(image);
    });
  });
  await page.goto('/', { waitUntil: 'commit' });
  await expect(page.getByRole('button', { name: 'Log in' })).toBeVisible();
  expect(await page.evaluate(() => document.readyState)).not.toBe('complete');

  const other = await context.newPage();
  await other.goto('/');
  await workerControls(other);
  await workerControls(page);
  await expect.poll(() => keepsConfiguration(other)).toBe(true);
  await other.evaluate(() => caches.delete('homelab-config'));
  await other.close();
  expect(await keepsConfiguration(page)).toBe(false);
  for (const route of held) await route.continue();
  await expect.poll(() => keepsConfiguration(page)).toBe(true);
});

test('offline the shell works and says so; no answer of a service and no token was kept', async ({ page, context }) => {
  await logIn(page);
  await workerControls(page);
  await expect(liveState(page)).toHaveText('Live');
  await expect.poll(() => keepsConfiguration(page)).toBe(true);
  const token = await page.evaluate(() => {
    const key = Object.keys(sessionStorage).find((name) => name.startsWith('oidc.user:')) ?? '';
    return (JSON.parse(sessionStorage.getItem(key) ?? '{}') as { access_token: string }).access_token;
  });
  expect(token.length).toBeGreaterThan(20);
  const everything = await kept(page);
  expect(everything.length).toBeGreaterThan(10);
  expect(everything.filter(({ address }) => /\/(api|ws|token|callback)\b|[?&](code|token)=/.test(address))).toEqual([]);
  expect(everything.filter(({ body }) => body.includes(token))).toEqual([]);
  expect(await page.evaluate(() => Object.entries(localStorage).filter(([key]) => key.startsWith('oidc')))).toEqual([]);

  await context.setOffline(true);
  await page.reload();
  await expect(page.getByText('This device has no network. The page works, but shows nothing new')).toBeVisible();
  await page.getByRole('link', { name: 'Energy', exact: true }).click();
  await expect(page.getByRole('heading', { level: 1, name: 'Energy' })).toBeVisible();
  await expect(page.getByRole('main').getByRole('alert').first()).toContainText('the server could not be reached');
  await context.setOffline(false);
  await expect(liveState(page)).toHaveText('Live', { timeout: 45_000 });
});

test('every answer of the page carries the headers of security-headers.json, and the document has nothing inline', async ({ request }) => {
  const source = JSON.parse(readFileSync(new URL('security-headers.json', WEB), 'utf8')) as Record<string, string>;
  const document = await (await request.get('/')).text();
  const script = /src="(\/assets\/[^"]+)"/.exec(document)?.[1] ?? '';
  for (const path of ['/', '/energy', '/callback', '/config.json', '/service-worker.js', '/app.webmanifest', '/before-paint.js', script, '/assets/missing.js']) {
    const headers = (await request.get(path)).headers();
    for (const [name, value] of Object.entries(source)) {
      expect(headers[name.toLowerCase()], `${name} of ${path}`).toBe(value.replace('{connect_origins}', stack.issuerUrl));
    }
  }
  const policy = source['Content-Security-Policy'] ?? '';
  expect(policy).not.toMatch(/unsafe|data:|\*/);
  expect(policy).toContain("default-src 'none'");
  expect(document).not.toMatch(/<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=/i);
});
