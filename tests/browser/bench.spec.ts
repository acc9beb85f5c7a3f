/**
 * `make bench-web`: the figures of the real build in front of the simulated house, one JSON line into BENCH_FILE. It asserts nothing about them:
 * targets are docs/PERFORMANCE.md's, and a busy machine must not fail here.
 */
import { writeFileSync } from 'node:fs';
import { expect, type Page, test } from '@playwright/test';
import { connectAsync, type MqttClient } from 'mqtt';
import { saveEye, shellyHt } from './frames';
import { liveState, logIn, region, settled } from './page';
import { beginHouse, stack } from './stack';

const FILE = process.env['BENCH_FILE'];

/** WebPageTest's "3G Fast": 1.6 Mbit/s down, 768 kbit/s up, 150 ms for a round trip. */
const FAST_3G = { offline: false, downloadThroughput: 1_600_000 / 8, uploadThroughput: 768_000 / 8, latency: 150 };
const SLOWER_CPU = 4;
const LOADS = 5;
const READINGS = 18_000;
/** Acknowledged together: a real meter sends one a second, this is five hours of it in a minute. */
const BURST = 50;
const PAINTS = 200;
const IDLE_MS = 30_000;

interface Load {
  readonly fcp: number;
  readonly lcp: number;
  readonly cls: number;
  readonly scriptBytes: number;
}

test('bench', async ({ browser }) => {
  test.setTimeout(600_000);
  await beginHouse(0);
  // Without a service worker every load is a first one.
  const context = await browser.newContext({ serviceWorkers: 'block', viewport: { width: 412, height: 823 }, baseURL: stack.webUrl });
  const page = await context.newPage();
  await logIn(page);
  await expect(page.getByTestId('running-hour')).toContainText(/\d+\.\d\d/);

  const loads: Load[] = [];
  for (let number = 0; number < LOADS; number += 1) loads.push(await load(page));
  const by = (field: keyof Load) => median(loads.map((one) => one[field]));

  await page.goto('/');
  await settled(page);
  await expect(liveState(page)).toHaveText('Live');
  const device = await connectAsync({ host: stack.mqttHost, port: stack.mqttPort, clientId: 'bench', reconnectPeriod: 0 });
  const paints = await painted(page, device);
  const idle = await idleCpu(page);
  const heap = await heapGrowth(page, device);
  await device.endAsync();

  const figures = {
    bench: 'web',
    first_js_kb: round(by('scriptBytes') / 1000, 1),
    fcp_s: round(by('fcp') / 1000, 2),
    lcp_s: round(by('lcp') / 1000, 2),
    cls: round(Math.max(...loads.map(({ cls }) => cls)), 4),
    heap_growth_mb: round(heap / 1e6, 2),
    paint_p50_ms: Math.round(quantile(paints, 0.5)),
    paint_p99_ms: Math.round(quantile(paints, 0.99)),
    idle_cpu_percent: round(idle, 1),
    loads: LOADS,
    readings: READINGS,
    paints: paints.length,
    chromium: browser.version(),
  };
  const line = JSON.stringify(figures);
  if (FILE === undefined) console.log(line);
  else writeFileSync(FILE, `${line}\n`);
});

/** One load of the first view, logged in, nothing cached, on a slow phone in a slow network. */
async function load(page: Page): Promise<Load> {
  const cdp = await page.context().newCDPSession(page);
  await cdp.send('Network.enable');
  await cdp.send('Network.setCacheDisabled', { cacheDisabled: true });
  await cdp.send('Network.emulateNetworkConditions', FAST_3G);
  await cdp.send('Emulation.setCPUThrottlingRate', { rate: SLOWER_CPU });
  const scripts = new Set<string>();
  let scriptBytes = 0;
  cdp.on('Network.responseReceived', ({ requestId, type }) => {
    if (type === 'Script') scripts.add(requestId);
  });
  cdp.on('Network.loadingFinished', ({ requestId, encodedDataLength }) => {
    if (scripts.has(requestId)) scriptBytes += encodedDataLength;
  });
  await page.reload();
  await settled(page);
  await expect(liveState(page)).toHaveText('Live');
  // Late shifts and a larger paint would come with what is loaded last.
  await page.waitForTimeout(1_000);
  const seen = await page.evaluate(
    () =>
      new Promise<{ fcp: number; lcp: number; cls: number }>((resolve) => {
        const found = { fcp: 0, lcp: 0, cls: 0 };
        for (const type of ['paint', 'largest-contentful-paint', 'layout-shift']) {
          new PerformanceObserver((list) => {
            for (const entry of list.getEntries()) {
              if (entry.name === 'first-contentful-paint') found.fcp = entry.startTime;
              if (entry.entryType === 'largest-contentful-paint') found.lcp = entry.startTime;
              if (entry.entryType === 'layout-shift') found.cls += (entry as PerformanceEntry & { readonly value: number }).value;
            }
          }).observe({ type, buffered: true });
        }
        setTimeout(() => {
          resolve(found);
        }, 500);
      }),
  );
  await cdp.send('Emulation.setCPUThrottlingRate', { rate: 1 });
  await cdp.detach();
  return { ...seen, scriptBytes };
}

/** Milliseconds from publishing a temperature to the frame that shows it. */
async function painted(page: Page, device: MqttClient): Promise<readonly number[]> {
  const sensor = 'shellyhtg3-bench';
  const send = (celsius: number) => device.publishAsync(`${sensor}/events/rpc`, JSON.stringify(shellyHt(sensor, celsius, 40)), { qos: 1 });
  await send(5);
  const tile = region(page, 'Temperatures').getByRole('listitem').filter({ hasText: sensor });
  await expect(tile).toContainText('5.0');
  await tile.locator('.room-value').evaluate((element) => {
    const shown: [string, number][] = [];
    (window as unknown as { shown: typeof shown }).shown = shown;
    new MutationObserver(() => {
      const text = element.textContent;
      // The frame callback comes before the paint, a message posted in it after.
      requestAnimationFrame(() => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => shown.push([text, Date.now()]);
        port2.postMessage(null);
      });
    }).observe(element, { characterData: true, childList: true, subtree: true });
  });
  const sent = new Map<string, number>();
  for (let number = 0; number < PAINTS; number += 1) {
    const celsius = 10 + number / 10;
    sent.set(celsius.toFixed(1), Date.now());
    await send(celsius);
    // Not in step with anything the page does.
    await page.waitForTimeout(100 + Math.random() * 100);
  }
  await expect(tile).toContainText((10 + (PAINTS - 1) / 10).toFixed(1));
  await page.waitForTimeout(200);
  const shown = await page.evaluate(() => (window as unknown as { shown: [string, number][] }).shown);
  const first = new Map<string, number>();
  for (const [text, at] of shown) {
    const celsius = /\d+\.\d/.exec(text)?.[0] ?? '';
    if (!first.has(celsius)) first.set(celsius, at);
  }
  return [...sent].flatMap(([celsius, at]) => (first.has(celsius) ? [(first.get(celsius) ?? 0) - at] : []));
}

/** Processor time of the page's process and of the one that draws for it, while the house sends a meter reading each second, in percent of a core. */
async function idleCpu(page: Page): Promise<number> {
  const browser = page.context().browser();
  if (browser === null) throw new Error('no browser');
  const cdp = await browser.newBrowserCDPSession();
  const spent = async () => {
    const { processInfo } = await cdp.send('SystemInfo.getProcessInfo');
    return processInfo.filter(({ type }) => type === 'renderer' || type === 'GPU').reduce((sum, { cpuTime }) => sum + cpuTime, 0);
  };
  await page.bringToFront();
  const before = await spent();
  const begin = performance.now();
  await page.waitForTimeout(IDLE_MS);
  const percent = (100 * (await spent()) - 100 * before) / ((performance.now() - begin) / 1000);
  await cdp.detach();
  return percent;
}

/** Bytes the heap has grown by when the page has taken in so many readings of the meter. */
async function heapGrowth(page: Page, device: MqttClient): Promise<number> {
  const cdp = await page.context().newCDPSession(page);
  const used = async () => {
    await cdp.send('HeapProfiler.collectGarbage');
    return (await cdp.send('Runtime.getHeapUsage')).usedSize;
  };
  let received = 0;
  await cdp.send('Network.enable');
  cdp.on('Network.webSocketFrameReceived', ({ response }) => {
    if (response.payloadData.includes('"stream":"energy"')) received += 1;
  });
  const before = await used();
  for (let number = 0; number < READINGS; number += BURST) {
    const burst = Array.from({ length: BURST }, (_, index) => JSON.stringify(saveEye(stack.meter, 1_000 + ((number + index) % 3_000), 50_000_000 + number + index)));
    await Promise.all(burst.map((frame) => device.publishAsync('saveeye/telemetry', frame, { qos: 1 })));
  }
  await expect.poll(() => received, { timeout: 240_000 }).toBeGreaterThanOrEqual(READINGS);
  await page.waitForTimeout(1_000);
  const after = await used();
  await cdp.detach();
  return after - before;
}

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? NaN;
}

function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}
