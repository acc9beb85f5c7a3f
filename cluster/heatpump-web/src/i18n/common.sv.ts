/** Texts that belong to no feature, in Swedish. */
import type { Age } from '../lib/format/format';
import type { CommonMessages } from './catalogue';
import { count } from './count';

export const sv: CommonMessages = {
  product: 'Homelab',
  skip: 'Hoppa till innehållet',
  retry: 'Försök igen',
  stale: 'Gammalt',
  on: 'På',
  off: 'Av',
  notReported: 'Inte rapporterat',
  asTable: 'Visa som tabell',
  loading: 'Laddar',
  chartLoading: 'Laddar diagrammet',
  menu: 'Inställningar och konto',
  close: 'Stäng',
  pages: {
    label: 'Sidor',
    now: 'Nu',
    energy: 'Energi',
    heatpump: 'Värmepump',
    plugs: 'Uttag',
    devices: 'Enheter',
  },
  age(age: Age): string {
    switch (age.unit) {
      case 'now':
        return 'alldeles nyss';
      case 'second':
        return `för ${age.count} s sedan`;
      case 'minute':
        return `för ${age.count} min sedan`;
      case 'hour':
        return `för ${age.count} h sedan`;
      case 'day':
        return `för ${count(age.count, 'dag', 'dagar')} sedan`;
    }
  },
  unsynced: 'Klockan var inte ställd när detta mättes: tiden är osäker',
  problem: {
    title: 'Det gick inte att ladda',
    refresh: 'Kunde inte uppdatera',
    crashed: 'Den här delen av sidan slutade fungera',
    forbidden: 'Ditt konto får inte se detta',
  },
  live: {
    connecting: 'Ansluter',
    live: 'Live',
    lost: 'Anslutningen bröts. Försöker igen.',
    lostSince: (age: string) => `Anslutningen bröts ${age}. Försöker igen.`,
    login: 'Sessionen är slut',
    forbidden: 'Ingen åtkomst till livevärden',
  },
  theme: { label: 'Tema', system: 'Auto', light: 'Ljust', dark: 'Mörkt' },
  language: { label: 'Språk', system: 'Auto' },
  offline: 'Enheten har inget nätverk. Sidan fungerar men visar inget nytt förrän huset kan nås igen.',
  newVersion: { text: 'En ny version av sidan är klar.', take: 'Använd den nu' },
  boot: { title: 'Sidan kan inte starta' },
  notFound: { title: 'Sidan finns inte', home: 'Till första sidan' },
};
