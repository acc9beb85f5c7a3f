/** Live power, in English. */
import { count } from '../../i18n/count';

export const en = {
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
};
