/** Live power, in Swedish. */
import { count } from '../../i18n/count';
import type { en } from './messages.en';

export const sv: typeof en = {
  power: {
    title: 'Effekt',
    buying: 'från elnätet',
    selling: 'till elnätet',
    balanced: 'i balans',
    import: 'Köper',
    export: 'Säljer',
    phases: 'Faser',
    phase: (number: number) => `L${number}`,
    volts: 'V',
    amperes: 'A',
    trace: (minutes: number) => (minutes === 1 ? 'Senaste minuten' : `Senaste ${minutes} minuterna`),
    traceStart: (minutes: number) => `för ${minutes} min sedan`,
    traceEnd: 'nu',
    traceCollecting: 'Väntar på mätvärden',
    traceSummary: (low: string, high: string, minutes: number) => `Mellan ${low} och ${high} de senaste ${count(minutes, 'minuten', 'minuterna')}`,
    meters: 'Mätare',
    partOfHouse: 'huvudmätare',
    empty: 'Ingen mätare har skickat något värde ännu.',
    noMain: 'Flera mätare rapporterar och ingen är vald som huvudmätare, så det finns ingen summa för huset.',
  },
};
