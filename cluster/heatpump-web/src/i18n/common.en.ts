/** Texts that belong to no feature, in English. */
import type { Age } from '../lib/format/format';
import { count } from './count';

export const en = {
  product: 'Homelab',
  skip: 'Skip to content',
  retry: 'Try again',
  stale: 'Old',
  on: 'On',
  off: 'Off',
  notReported: 'Not reported',
  asTable: 'Show as table',
  loading: 'Loading',
  chartLoading: 'Loading the chart',
  menu: 'Settings and account',
  close: 'Close',
  pages: {
    label: 'Pages',
    now: 'Now',
    energy: 'Energy',
    heatpump: 'Heat pump',
    plugs: 'Plugs',
    devices: 'Devices',
  },
  age(age: Age): string {
    switch (age.unit) {
      case 'now':
        return 'just now';
      case 'second':
        return `${age.count} s ago`;
      case 'minute':
        return `${age.count} min ago`;
      case 'hour':
        return `${age.count} h ago`;
      case 'day':
        return `${count(age.count, 'day', 'days')} ago`;
    }
  },
  unsynced: 'The clock was not set when this was measured: its time is uncertain',
  problem: {
    title: 'This could not be loaded',
    refresh: 'Could not refresh',
    crashed: 'This part of the page failed',
    forbidden: 'Your account may not see this',
  },
  live: {
    connecting: 'Connecting',
    live: 'Live',
    lost: 'Connection lost. Trying again.',
    lostSince: (age: string) => `Connection lost ${age}. Trying again.`,
    login: 'Session ended',
    forbidden: 'No access to live values',
  },
  theme: { label: 'Theme', system: 'Auto', light: 'Light', dark: 'Dark' },
  language: { label: 'Language', system: 'Auto' },
  offline: 'This device has no network. The page works, but shows nothing new until the house can be reached again.',
  newVersion: { text: 'A new version of this page is ready.', take: 'Use it now' },
  boot: { title: 'The page cannot start' },
  notFound: { title: 'There is no such page', home: 'Go to the first page' },
};
