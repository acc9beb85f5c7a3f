/** Temperatures of the rooms, in English. */
import { count } from '../../i18n/count';

export const en = {
  temperature: {
    title: 'Temperatures',
    period: 'Last 24 hours',
    empty: 'No temperature sensor has reported yet.',
    noHistory: 'No temperatures in the last 24 hours.',
    humidity: (percent: string) => `${percent} % RH`,
    humidityLabel: 'relative humidity',
    battery: (percent: string) => `Battery ${percent} %`,
    time: 'Time',
    summary: (rooms: number, low: string, high: string) => `${count(rooms, 'room', 'rooms')}, between ${low} and ${high} °C.`,
    noneShown: 'No temperatures in this range.',
  },
};
