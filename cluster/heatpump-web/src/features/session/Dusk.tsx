/** The picture behind the login: the cottage at dusk among spruces, a light on. Decoration only. */
export function Dusk() {
  return (
    <svg className="dusk" viewBox="0 0 1200 300" preserveAspectRatio="xMidYMax slice" aria-hidden="true" focusable="false">
      <path className="dusk-far" d={FAR.map(spruce).join('')} />
      <path className="dusk-roof" d="M364 164h16v50h-16z" />
      <path className="dusk-wall" d="M262 300v-78l66-52 66 52v78z" />
      <path className="dusk-roof" d="M246 232 328 168l82 64-8 9-74-57-74 57z" />
      <path className="dusk-corner" d="M262 230h6v70h-6zM388 230h6v70h-6z" />
      <path className="dusk-window" d="M286 244h30v30h-30zM340 244h30v30h-30zM318 206h20v20h-20z" />
      <path className="dusk-bar" d="M301 244v30M286 259h30M355 244v30M340 259h30M328 206v20" />
      <path className="dusk-near" d={NEAR.map(spruce).join('')} />
    </svg>
  );
}

/** Where each stands and how tall it is. */
const FAR: readonly (readonly [number, number])[] = [
  [30, 150],
  [95, 190],
  [160, 140],
  [215, 175],
  [430, 165],
  [505, 205],
  [575, 150],
  [650, 185],
  [720, 140],
  [790, 200],
  [865, 160],
  [940, 190],
  [1015, 150],
  [1085, 210],
  [1160, 165],
];
const NEAR: readonly (readonly [number, number])[] = [
  [0, 110],
  [70, 85],
  [130, 120],
  [470, 95],
  [830, 115],
  [905, 80],
  [980, 125],
  [1130, 100],
  [1200, 130],
];

/** Three tiers of branches, each wider than the one above. */
function spruce([x, height]: readonly [number, number]): string {
  return [0, 0.28, 0.55]
    .map((from, tier) => {
      const half = height * (0.13 + 0.06 * tier);
      const top = 300 - height * (1 - from);
      const bottom = tier === 2 ? 300 : 300 - height * (0.52 - 0.27 * tier);
      return `M${x} ${top.toFixed(0)}L${(x + half).toFixed(0)} ${bottom.toFixed(0)}H${(x - half).toFixed(0)}Z`;
    })
    .join('');
}
