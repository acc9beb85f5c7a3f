/** Charts, in English. */
export const en = {
  chart: {
    zoom: 'Zoom and move',
    zoomIn: 'Zoom in',
    zoomOut: 'Zoom out',
    earlier: 'Earlier',
    later: 'Later',
    whole: 'Show all',
    keys: 'Arrow keys move, plus and minus zoom, zero shows all',
    gaps: 'Gaps in the data',
    key: 'Key',
    shown: (from: string, to: string) => `Showing ${from} to ${to}`,
  },
};
