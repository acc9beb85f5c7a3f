/** Temperatures of the rooms, in Swedish. */
import { count } from '../../i18n/count';
import type { en } from './messages.en';

export const sv: typeof en = {
  temperature: {
    title: 'Temperaturer',
    period: 'Senaste dygnet',
    empty: 'Ingen temperaturgivare har rapporterat ännu.',
    noHistory: 'Inga temperaturer det senaste dygnet.',
    humidity: (percent: string) => `${percent} % RF`,
    humidityLabel: 'relativ luftfuktighet',
    battery: (percent: string) => `Batteri ${percent} %`,
    time: 'Tid',
    summary: (rooms: number, low: string, high: string) => `${count(rooms, 'rum', 'rum')}, mellan ${low} och ${high} °C.`,
    noneShown: 'Inga temperaturer i det här intervallet.',
  },
};
