/** The last minutes of the house's power, kept in memory for the moving line. Bounded in time and in number. */
import { MINUTE } from '../../lib/time/zone';

export interface TracePoint {
  readonly time: number;
  readonly watts: number;
}

const TRACE_MS = 5 * MINUTE;
/** Two a second over the window; a meter that sends faster is thinned by dropping the oldest. */
const TRACE_POINTS = 600;

/** The trace with one more point. A point that is not newer than the last is not added: order is time. */
export function extendTrace(trace: readonly TracePoint[], point: TracePoint): readonly TracePoint[] {
  const last = trace.at(-1);
  if (last !== undefined && point.time <= last.time) return trace;
  const kept = trace.filter((earlier) => earlier.time > point.time - TRACE_MS);
  return [...kept.slice(-(TRACE_POINTS - 1)), point];
}

/** The picture grows with what there is to show: a line of a few seconds in five minutes would be a dot. */
const WINDOWS_MS = [MINUTE, 2 * MINUTE, TRACE_MS];

export interface TraceShape {
  /** SVG path data in a box of 1000 by 100; empty below two points. */
  readonly line: string;
  readonly area: string;
  /** What the whole width stands for. */
  readonly windowMs: number;
  readonly lowW: number;
  readonly highW: number;
}

/** A pause longer than this is drawn as a gap: no reading, no line. */
const GAP_MS = 30_000;

export function traceShape(trace: readonly TracePoint[]): TraceShape | null {
  const first = trace[0];
  const last = trace.at(-1);
  if (first === undefined || last === undefined || trace.length < 2) return null;
  const windowMs = WINDOWS_MS.find((window) => last.time - first.time <= window) ?? TRACE_MS;
  const watts = trace.map((point) => point.watts);
  const lowW = Math.min(...watts);
  const highW = Math.max(...watts);
  // Zero belongs to the picture: without it a kettle and a sauna look alike.
  const bottom = Math.min(0, lowW);
  const top = Math.max(highW * 1.1, bottom + 100);
  const x = (time: number) => (1000 * (1 - (last.time - time) / windowMs)).toFixed(1);
  const y = (value: number) => (100 - (100 * (value - bottom)) / (top - bottom)).toFixed(1);
  const floor = y(0);
  let line = '';
  let area = '';
  let previous: TracePoint | null = null;
  for (const point of trace) {
    const at = `${x(point.time)} ${y(point.watts)}`;
    const broken = previous === null || point.time - previous.time > GAP_MS;
    if (broken && previous !== null) area += `L${x(previous.time)} ${floor}Z`;
    line += broken ? `M${at}` : `L${at}`;
    area += broken ? `M${x(point.time)} ${floor}L${at}` : `L${at}`;
    previous = point;
  }
  return { line, area: `${area}L${x(last.time)} ${floor}Z`, windowMs, lowW, highW };
}
