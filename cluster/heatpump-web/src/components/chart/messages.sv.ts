/** Charts, in Swedish. */
import type { en } from './messages.en';

export const sv: typeof en = {
  chart: {
    zoom: 'Zooma och flytta',
    zoomIn: 'Zooma in',
    zoomOut: 'Zooma ut',
    earlier: 'Tidigare',
    later: 'Senare',
    whole: 'Visa allt',
    keys: 'Piltangenter flyttar, plus och minus zoomar, noll visar allt',
    gaps: 'Luckor i mätningarna',
    key: 'Förklaring',
    shown: (from: string, to: string) => `Visar ${from} till ${to}`,
  },
};
