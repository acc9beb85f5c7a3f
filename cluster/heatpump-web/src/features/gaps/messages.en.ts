/** Reasons of gaps, in English. */
import { count } from '../../i18n/count';

export const en = {
  gaps: {
    loss: (number: number, why: string) => `${count(number, 'reading was', 'readings were')} not kept (${why})`,
    offline: (device: string) => `${device} was not connected`,
    unknown: 'no reading arrived',
    words: { full: 'the buffer was full', 'drop-oldest': 'the oldest made room', drop_oldest: 'the oldest made room', age: 'too old', damaged: 'the buffer was damaged' } as Readonly<Record<string, string>>,
    noWord: 'no reason given',
  },
};
