/**
 * Every text of the page, in English. The catalogue's type is this file's: a translation that lacks a text or has one too many does not
 * compile. Texts with values in them are functions, so that their arguments are checked as well.
 */
import type { Age } from '../lib/format/format';

function count(number: number, one: string, many: string): string {
  return `${number} ${number === 1 ? one : many}`;
}

export const en = {
  product: 'Homelab',
  skip: 'Skip to content',
  dashboard: 'Now',
  retry: 'Try again',
  stale: 'Old',
  on: 'On',
  off: 'Off',
  notReported: 'Not reported',
  asTable: 'Show as table',
  loading: 'Loading',
  chartLoading: 'Loading the chart',
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
  session: {
    heading: 'The house, right now',
    introduction: 'Power, energy, temperatures and the heat pump, read from the house itself. For the people who live here.',
    logIn: 'Log in',
    logInWith: (issuer: string) => `You log in at ${issuer} and come back here.`,
    logOut: 'Log out',
    loggingIn: 'Logging in',
    loggingOut: 'Logging out',
    user: (name: string) => `Logged in as ${name}`,
    ended: 'Your session has ended. What you see is from before that.',
    failed: 'Logging in did not work',
    insecure: 'Logging in needs a secure address: open this page with https.',
    stale: 'This login attempt is no longer valid, perhaps because the page was opened from a bookmark. Please log in again.',
    denied: 'The login service refused access for this account.',
    unreachable: 'The login service could not be reached.',
  },
  boot: { title: 'The page cannot start' },
  notFound: { title: 'There is no such page', home: 'Go to the dashboard' },
  power: {
    title: 'Power',
    buying: 'from the grid',
    selling: 'to the grid',
    balanced: 'in balance',
    import: 'Import',
    export: 'Export',
    phases: 'Phases',
    phase: (number: number) => `L${number}`,
    volts: 'V',
    amperes: 'A',
    trace: (minutes: number) => (minutes === 1 ? 'Last minute' : `Last ${minutes} minutes`),
    traceStart: (minutes: number) => `${minutes} min ago`,
    traceEnd: 'now',
    traceCollecting: 'Waiting for readings',
    traceSummary: (low: string, high: string, minutes: number) => `Between ${low} and ${high} in the last ${count(minutes, 'minute', 'minutes')}`,
    meters: 'Meters',
    partOfHouse: 'main meter',
    empty: 'No meter has sent a reading yet.',
    noMain: 'Several meters report and none is set as the main meter, so there is no total for the house.',
  },
  energy: {
    title: 'Energy today',
    total: 'used',
    exported: 'sold',
    used: 'Used',
    sold: 'Sold',
    estimated: 'estimated',
    estimatedWhy: 'There was no reading for more than 15 minutes',
    hour: 'Hour',
    running: 'so far',
    again: 'again',
    empty: 'No energy has been counted today.',
    summary: (total: string, highest: string, hour: string) => `${total} so far today; most in the hour from ${hour}: ${highest}.`,
  },
  temperature: {
    title: 'Temperatures',
    period: 'Last 24 hours',
    empty: 'No temperature sensor has reported yet.',
    noHistory: 'No temperatures in the last 24 hours.',
    humidity: (percent: string) => `${percent} % RH`,
    humidityLabel: 'relative humidity',
    battery: (percent: string) => `Battery ${percent} %`,
    time: 'Time',
    summary: (rooms: number, low: string, high: string) => `${count(rooms, 'room', 'rooms')}, between ${low} and ${high} °C in the last 24 hours.`,
    historyFailed: (rooms: string) => `No history for ${rooms}`,
  },
  heatpump: {
    title: 'Heat pump',
    empty: 'No heat pump has reported yet.',
    state: {
      hotWater: 'Making hot water',
      heating: 'Heating the house',
      auxiliary: 'Heating with the electric heater only',
      circulating: 'Circulating, compressor at rest',
      resting: 'At rest',
      unknown: 'State not reported',
    },
    outdoor: 'Outdoors',
    indoor: 'Indoors',
    supply: 'Supply',
    return: 'Return',
    hotWater: 'Hot water',
    brineIn: 'Brine in',
    brineOut: 'Brine out',
    integral: 'Integral',
    integralUnit: 'degree-minutes',
    flowPump: 'Flow pump',
    parts: 'Running',
    compressor: 'Compressor',
    hotWaterValve: 'Hot water',
    aux3: '3 kW heater',
    aux6: '6 kW heater',
    brinePump: 'Brine pump',
    temperatures: 'Temperatures',
  },
  settings: {
    title: 'Heat-pump settings',
    empty: 'The heat pump has not reported its settings yet.',
    reported: 'Reported by the pump',
    wanted: (value: string) => `Wanted: ${value}`,
    indoorTarget: 'Wanted indoors',
    mode: 'Mode',
    modes: ['Off', 'Automatic', 'Compressor only', 'Heater only', 'Hot water only'] as readonly string[],
    curve: 'Curve',
    curveMin: 'Curve minimum',
    curveMax: 'Curve maximum',
    curvePlus5: 'Curve at +5',
    curveZero: 'Curve at 0',
    curveMinus5: 'Curve at −5',
    heatStop: 'Heat stop',
    integral: 'Integral for start',
  },
};

export type Messages = typeof en;
