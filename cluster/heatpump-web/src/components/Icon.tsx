/** The page's pictures: lines in a box of 24, drawn in the colour of the text. Decoration only; words name what they stand for. */
const PATHS = {
  now: 'M3.5 11.5 12 4l8.5 7.5M6 9.5V20h12V9.5M10 20v-5.5h4V20',
  energy: 'M5 20v-6M10 20V9.5M15 20v-8M20 20V5M3 20h18.5',
  heatpump: 'M12 12m-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0M12 10c-1-4 1-6.5 4-6.5 1 3.5-1 6-4 6.5zM14 12c4-1 6.5 1 6.5 4-3.5 1-6-1-6.5-4zM12 14c1 4-1 6.5-4 6.5-1-3.5 1-6 4-6.5zM10 12c-4 1-6.5-1-6.5-4 3.5-1 6 1 6.5 4z',
  plugs: 'M9 3v5M15 3v5M6 8h12v3.5a6 6 0 0 1-12 0zM12 17.5V21',
  devices: 'M12 12m-1.5 0a1.5 1.5 0 1 0 3 0a1.5 1.5 0 1 0-3 0M8.5 15.5a5 5 0 0 1 0-7M15.5 8.5a5 5 0 0 1 0 7M5.5 18.5a9.2 9.2 0 0 1 0-13M18.5 5.5a9.2 9.2 0 0 1 0 13',
  menu: 'M4 7h10M18 7h2M4 12h3M11 12h9M4 17h8M16 17h4M16 7m-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0M9 12m-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0M14 17m-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0',
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { readonly name: IconName }) {
  return (
    <svg className="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
