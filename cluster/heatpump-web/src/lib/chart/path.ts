/** SVG path data of lines with holes in them. Pure. */

export interface PathPoint {
  readonly time: number;
  /** Null: nothing is known here, and no line is drawn over it. */
  readonly value: number | null;
}

export interface Scale {
  readonly x: (time: number) => number;
  readonly y: (value: number) => number;
}

/** Straight from point to point; a value with nothing on either side becomes a dot, as a line of no length with round ends is one. */
export function linePath(points: readonly PathPoint[], { x, y }: Scale): string {
  let path = '';
  let open = false;
  for (const { time, value } of points) {
    if (value === null) {
      open = false;
      continue;
    }
    const at = `${x(time).toFixed(1)} ${y(value).toFixed(1)}`;
    path += open ? `L${at}` : `M${at}l0 0`;
    open = true;
  }
  return path;
}
