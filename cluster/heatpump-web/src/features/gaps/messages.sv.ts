/** Reasons of gaps, in Swedish. */
import { count } from '../../i18n/count';
import type { en } from './messages.en';

export const sv: typeof en = {
  gaps: {
    loss: (number: number, why: string) => `${count(number, 'mätvärde', 'mätvärden')} sparades inte (${why})`,
    offline: (device: string) => `${device} var inte ansluten`,
    unknown: 'inget mätvärde kom fram',
    words: { full: 'bufferten var full', 'drop-oldest': 'de äldsta gav plats', drop_oldest: 'de äldsta gav plats', age: 'för gamla', damaged: 'bufferten var skadad' },
    noWord: 'ingen orsak angiven',
  },
};
