/** The part of a chart that is looked at: zooming and moving within what there is. Pure; instants are milliseconds. */

export interface TimeRange {
  readonly from: number;
  readonly to: number;
}

/** Closer than this there is nothing to see: no device is drawn finer. */
export const SHORTEST_VIEW_MS = 5 * 60 * 1000;

/** `factor` below 1 comes closer; the instant `at` stays where it is on the screen. */
export function zoomed(view: TimeRange, extent: TimeRange, factor: number, at: number): TimeRange {
  const full = extent.to - extent.from;
  const span = Math.min(Math.max((view.to - view.from) * factor, Math.min(SHORTEST_VIEW_MS, full)), full);
  const share = (at - view.from) / (view.to - view.from);
  return within({ from: at - share * span, to: at + (1 - share) * span }, extent);
}

/** Moved by a share of its own length: 0.5 is half a view later. */
export function moved(view: TimeRange, extent: TimeRange, share: number): TimeRange {
  const by = (view.to - view.from) * share;
  return within({ from: view.from + by, to: view.to + by }, extent);
}

/** From one instant to another, whichever comes first; too small a stretch is a click, not a choice: null. */
export function selected(a: number, b: number, extent: TimeRange): TimeRange | null {
  const chosen = { from: Math.max(Math.min(a, b), extent.from), to: Math.min(Math.max(a, b), extent.to) };
  return chosen.to - chosen.from < SHORTEST_VIEW_MS ? null : chosen;
}

/** The same length, pushed back inside; never longer than what there is. */
function within(view: TimeRange, extent: TimeRange): TimeRange {
  const span = Math.min(view.to - view.from, extent.to - extent.from);
  const from = Math.min(Math.max(view.from, extent.from), extent.to - span);
  return { from, to: from + span };
}

export function isWhole(view: TimeRange, extent: TimeRange): boolean {
  return view.from <= extent.from && view.to >= extent.to;
}

/** Whether two half-open ranges share an instant. */
export function overlaps(a: TimeRange, b: TimeRange): boolean {
  return a.from < b.to && b.from < a.to;
}
