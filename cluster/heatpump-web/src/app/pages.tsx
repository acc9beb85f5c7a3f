/**
 * Every page of the app, in the order of the navigation. The first is part of the script the document asks for: it is what is looked at
 * every morning, and would otherwise be asked for a round trip later. Another is loaded when somebody goes there or is about to.
 */
import { type ComponentType, lazy } from 'react';
import NowPage from '../features/now/NowPage';
import type { IconName } from '../components/Icon';
import type { CommonMessages } from '../i18n/messages';

interface PageModule {
  readonly default: ComponentType;
}

export interface PageEntry {
  readonly path: string;
  readonly name: Exclude<keyof CommonMessages['pages'], 'label'> & IconName;
  /** None where there is nothing to load. */
  readonly load?: () => Promise<PageModule>;
  readonly Component: ComponentType;
}

function page(path: string, name: PageEntry['name'], load: () => Promise<PageModule>): PageEntry {
  return { path, name, load, Component: lazy(load) };
}

export const PAGES: readonly PageEntry[] = [
  { path: '/', name: 'now', Component: NowPage },
  page('/energy', 'energy', () => import('../features/energy/EnergyPage')),
  page('/heatpump', 'heatpump', () => import('../features/heatpump/HeatpumpPage')),
  page('/plugs', 'plugs', () => import('../features/plugs/PlugsPage')),
  page('/devices', 'devices', () => import('../features/devices/DevicesPage')),
];

/** Starts loading the page of an address before React asks for it, so that it does not wait for the configuration and the session. */
export function preloadPage(pathname: string): void {
  const entry = PAGES.find(({ path }) => path === pathname);
  // A failure here is met again, and shown, when the page is rendered.
  entry?.load?.().catch(() => undefined);
}
