/**
 * The drawing of a chart: axes in the household's time, a grid, gaps as hatched stretches, the value under the pointer, and the gestures
 * that zoom. What is drawn in it is given as a function of the scale. For the eye only: the frame around it says the same in words and as
 * a table.
 */
import { memo, type ReactNode, useEffect, useId, useMemo, useRef, useState } from 'react';
import type { Scale } from '../../lib/chart/path';
import { overlaps, type TimeRange } from '../../lib/chart/range';
import { timeTicks, type TimeTicks } from '../../lib/chart/time-ticks';
import type { Format } from '../../lib/format/format';
import { useServices } from '../../lib/services';
import { useGestures } from './use-gestures';

export interface Gap extends TimeRange {
  /** Why nothing was measured. */
  readonly reason: string;
}

export interface PlotScale extends Scale {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

export interface PlotProps {
  readonly view: TimeRange;
  readonly extent: TimeRange;
  readonly onView: (view: TimeRange) => void;
  /** Marks of the value axis, lowest and highest at its ends (lib/format/ticks). */
  readonly ticks: readonly number[];
  readonly formatTick: (value: number) => string;
  readonly gaps?: readonly Gap[];
  /** What is said of an instant under the pointer; null says nothing. */
  readonly tooltip: (time: number) => ReactNode;
  /** SVG elements. Must be stable (useCallback) where drawing is dear. */
  readonly children: (scale: PlotScale) => ReactNode;
}

const MARGIN = { top: 10, right: 10, bottom: 26, left: 46 } as const;
/** A mark needs this much room for its words. */
const TICK_PX = 72;

export function Plot({ view, extent, onView, ticks, formatTick, gaps = [], tooltip, children }: PlotProps) {
  const { config, format } = useServices();
  const hatch = useId();
  const surface = useRef<HTMLDivElement>(null);
  const [size, setSize] = useState({ width: 0, height: 0 });
  const [pointer, setPointer] = useState<number | null>(null);
  useEffect(() => {
    const element = surface.current;
    if (element === null) return;
    const observer = new ResizeObserver(([entry]) => {
      if (entry !== undefined) setSize({ width: entry.contentRect.width, height: entry.contentRect.height });
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
    };
  }, []);

  const low = ticks[0] ?? 0;
  const high = ticks.at(-1) ?? 1;
  const scale = useMemo((): PlotScale => {
    const width = Math.max(size.width - MARGIN.left - MARGIN.right, 1);
    const height = Math.max(size.height - MARGIN.top - MARGIN.bottom, 1);
    return {
      left: MARGIN.left,
      top: MARGIN.top,
      width,
      height,
      x: (time) => MARGIN.left + ((time - view.from) / (view.to - view.from)) * width,
      y: (value) => MARGIN.top + (1 - (value - low) / (high - low)) * height,
    };
  }, [size, view, low, high]);
  const timeAt = (x: number) => view.from + ((x - MARGIN.left) / scale.width) * (view.to - view.from);
  const { selection, handlers } = useGestures({ surface, view, extent, onView, timeAt });
  const marks = useMemo(
    () => timeTicks(view, config.householdTimeZone, Math.max(2, Math.floor(scale.width / TICK_PX))),
    [view, config.householdTimeZone, scale.width],
  );
  const time = pointer === null ? null : timeAt(pointer);
  const said = time === null || time < view.from || time > view.to ? null : tooltip(time);
  const shownGaps = gaps.filter((gap) => overlaps(gap, view));
  return (
    <div
      ref={surface}
      className="plot"
      {...handlers}
      onPointerMove={(event) => {
        handlers.onPointerMove(event);
        setPointer(event.clientX - event.currentTarget.getBoundingClientRect().left);
      }}
      onPointerLeave={() => {
        setPointer(null);
      }}
    >
      {size.width > 0 && (
        <svg width={size.width} height={size.height} aria-hidden="true" focusable="false">
          <defs>
            <pattern id={hatch} width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
              <path className="plot-hatch" d="M0 0v7" />
            </pattern>
          </defs>
          <Axes scale={scale} ticks={ticks} formatTick={formatTick} marks={marks} format={format} />
          <svg x={scale.left} y={0} width={scale.width} height={size.height} viewBox={`${scale.left} 0 ${scale.width} ${size.height}`}>
            {shownGaps.map((gap) => (
              <rect
                key={`${gap.from} ${gap.reason}`}
                fill={`url(#${hatch})`}
                x={scale.x(gap.from)}
                y={scale.top}
                width={Math.max(scale.x(gap.to) - scale.x(gap.from), 2)}
                height={scale.height}
              />
            ))}
            <Drawing scale={scale} draw={children} />
            {selection !== null && (
              <rect
                className="plot-selection"
                x={scale.x(selection.from)}
                y={scale.top}
                width={scale.x(selection.to) - scale.x(selection.from)}
                height={scale.height}
              />
            )}
            {said !== null && time !== null && <line className="plot-cursor" x1={scale.x(time)} x2={scale.x(time)} y1={scale.top} y2={scale.top + scale.height} />}
          </svg>
        </svg>
      )}
      {said !== null && pointer !== null && (
        <div className={pointer > size.width / 2 ? 'tooltip plot-tooltip plot-tooltip-left' : 'tooltip plot-tooltip'} style={{ left: pointer }}>
          {said}
        </div>
      )}
    </div>
  );
}

/** Not drawn anew while only the pointer moves. */
const Drawing = memo(function Drawing({ scale, draw }: { readonly scale: PlotScale; readonly draw: (scale: PlotScale) => ReactNode }) {
  return draw(scale);
});

interface AxesProps {
  readonly scale: PlotScale;
  readonly ticks: readonly number[];
  readonly formatTick: (value: number) => string;
  readonly marks: TimeTicks;
  readonly format: Format;
}

function Axes({ scale, ticks, formatTick, marks, format }: AxesProps) {
  const bottom = scale.top + scale.height;
  return (
    <>
      {ticks.map((tick) => (
        <g key={tick}>
          <line className={tick === 0 ? 'plot-line plot-zero' : 'plot-line'} x1={scale.left} x2={scale.left + scale.width} y1={scale.y(tick)} y2={scale.y(tick)} />
          <text className="plot-value" x={scale.left - 8} y={scale.y(tick)}>
            {formatTick(tick)}
          </text>
        </g>
      ))}
      {marks.instants.map((instant) => (
        <g key={instant}>
          <line className="plot-tick" x1={scale.x(instant)} x2={scale.x(instant)} y1={bottom} y2={bottom + 4} />
          <text className="plot-time" x={scale.x(instant)} y={bottom + 18}>
            {format.tick(instant, marks.unit)}
          </text>
        </g>
      ))}
    </>
  );
}
