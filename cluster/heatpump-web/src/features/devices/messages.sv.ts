/** Devices, in Swedish. */
import type { en } from './messages.en';

export const sv: typeof en = {
  devices: {
    title: 'Enheter',
    empty: 'Ingen enhet har rapporterat något ännu.',
    list: 'Enheter och vad som senast hördes från dem',
    kinds: { temperature: 'Temperatur', energy: 'Elmätare', heatpump: 'Värmepump', plug: 'Uttag' },
    lastSeen: 'Senast sedd',
    staleSince: (moment) => `Försenad sedan ${moment}`,
    interval: 'Väntas var',
    unknownInterval: 'inte känt ännu',
    seconds: (number) => `${number} s`,
    minutes: (number) => `${number} min`,
    hours: (number) => `${number} h`,
    battery: 'Batteri',
    signal: 'Signal',
    agent: 'Genom',
    session: 'Anslutning',
    online: 'ansluten',
    offline: 'inte ansluten',
    events: 'Vad som hände de senaste 7 dagarna',
    noEvents: 'Inget gick förlorat och ingen enhet kom eller gick.',
    loss: (count, reason) => `${count} mätvärden gick förlorade: ${reason}`,
    clockStep: 'Klockan ställdes; tider före och efter kan inte jämföras.',
    came: 'Ansluten',
    went: 'Frånkopplad',
  },
};
