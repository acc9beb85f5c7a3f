/**
 * The service worker: registers it after the page is loaded, and knows when a newer version of the page waits for the person to take it. The
 * worker itself is made by the build (vite.config.ts); it keeps the page's own files and its configuration, never an answer of a service and
 * never a token.
 */
import { useSyncExternalStore } from 'react';
import { CONFIG_PATH } from '../config/config';
import { HOUR } from '../time/zone';

const ADDRESS = '/service-worker.js';
/** A page that stays open for days asks this often whether there is a newer one. */
const ASK_EVERY_MS = HOUR;

interface PolicyFactory {
  createPolicy(name: string, rules: { createScriptURL: (address: string) => string }): { createScriptURL(address: string): string };
}

const listeners = new Set<() => void>();
let waiting: ServiceWorker | null = null;

/** Browsers without a service worker (or without https) go on without. */
export function registerWorker(): void {
  if (!('serviceWorker' in navigator) || !import.meta.env.PROD) return;
  if (document.readyState === 'complete') void register();
  else window.addEventListener('load', () => void register(), { once: true });
}

async function register(): Promise<void> {
  const { serviceWorker } = navigator;
  let first = serviceWorker.controller === null;
  serviceWorker.addEventListener('controllerchange', () => {
    // Taken here or in another tab: the files of the version before are gone with its worker.
    if (!first) window.location.reload();
    else keepConfiguration();
    first = false;
  });
  // The worker of another tab, or of the page before, may have taken over while this one was loading.
  if (!first) keepConfiguration();
  try {
    const registration = await serviceWorker.register(trusted(ADDRESS));
    notice(registration.waiting);
    registration.addEventListener('updatefound', () => {
      const found = registration.installing;
      found?.addEventListener('statechange', () => {
        // Without a controller it is the very first one, which replaces nothing.
        if (found.state === 'installed' && serviceWorker.controller !== null) notice(found);
      });
    });
    const ask = () => {
      registration.update().catch(() => undefined);
    };
    setInterval(ask, ASK_EVERY_MS);
    window.addEventListener('online', ask);
  } catch {
    // Private windows and full disks refuse; the page works without, only not offline.
  }
}

/** A page that is under a worker only since it began has fetched its configuration before: once more, so that the worker keeps it. */
function keepConfiguration(): void {
  const again = async () => {
    if ((await caches.match(CONFIG_PATH)) === undefined) await fetch(CONFIG_PATH, { cache: 'no-cache' });
  };
  // Without a network there is nothing to keep; the next page asks again.
  again().catch(() => undefined);
}

/** The page's policy takes a worker's address only from here, and only this one. */
function trusted(address: typeof ADDRESS): string {
  const factory = (window as { readonly trustedTypes?: PolicyFactory }).trustedTypes;
  return factory?.createPolicy('homelab-worker', { createScriptURL: () => address }).createScriptURL(address) ?? address;
}

function notice(worker: ServiceWorker | null): void {
  if (worker === null) return;
  waiting = worker;
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function useNewVersion(): boolean {
  return useSyncExternalStore(subscribe, () => waiting !== null);
}

/** The waiting version takes over, and every tab of the page begins again with it. */
export function takeNewVersion(): void {
  waiting?.postMessage({ type: 'SKIP_WAITING' });
}
