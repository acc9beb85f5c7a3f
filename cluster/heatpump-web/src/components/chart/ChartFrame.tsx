/**
 * Everything around a chart, the same for all of them: its name and unit, a summary in words, buttons and keys that zoom, a key to its
 * colours, gaps with their reasons, the data as a table, and every state of its query: loading, failed, empty, old. A chart that goes
 * through here cannot forget one.
 */
import { type KeyboardEvent, type ReactNode, useId, useState } from 'react';
import { isWhole, moved, overlaps, type TimeRange, zoomed } from '../../lib/chart/range';
import { useServices } from '../../lib/services';
import { ChartSkeleton } from '../ChartSkeleton';
import { type Loaded, QueryView } from '../QueryView';
import { useMessages } from './messages';
import type { Gap } from './Plot';
import './chart.css';

export interface LegendItem {
  readonly name: string;
  /** Class of the swatch: series-0 to series-7, or one of the chart's own. */
  readonly swatch: string;
}

/** What a chart draws: the range that is looked at, all there is, and how it changes the former. Passed on to Plot as it is. */
export interface ChartView {
  readonly view: TimeRange;
  readonly extent: TimeRange;
  readonly onView: (view: TimeRange) => void;
}

interface ChartFrameProps<T> {
  /** Names the chart; shown unless the card around it says the same. */
  readonly title: string;
  readonly titleHidden?: boolean;
  readonly unit: string;
  readonly query: Loaded<T>;
  readonly isEmpty: (data: T) => boolean;
  readonly empty: string;
  /** All that can be looked at. */
  readonly extent: TimeRange;
  readonly legend?: readonly LegendItem[];
  readonly gaps?: readonly Gap[];
  /** One or two sentences that say what the chart shows in the range. */
  readonly summary: (data: T, view: TimeRange) => string;
  /** The same data as rows; made only when somebody opens it. */
  readonly table: (data: T, view: TimeRange) => ReactNode;
  readonly children: (data: T, chart: ChartView) => ReactNode;
}

/** Half as long: two presses show a quarter. */
const ZOOM = 0.5;
const MOVE = 0.25;

export function ChartFrame<T>(props: ChartFrameProps<T>) {
  const { title, titleHidden = false, unit, query, isEmpty, empty, extent } = props;
  const heading = useId();
  return (
    <figure className="chart-frame" aria-labelledby={heading}>
      <figcaption id={heading} className={titleHidden ? 'visually-hidden' : 'chart-title'}>
        {title} <span className="chart-unit">{unit}</span>
      </figcaption>
      <QueryView query={query} skeleton={<ChartFrameSkeleton />} isEmpty={isEmpty} empty={empty}>
        {/* Another extent is another chart: what was zoomed into is not in it. */}
        {(data) => <Frame key={`${extent.from} ${extent.to}`} {...props} data={data} />}
      </QueryView>
    </figure>
  );
}

function Frame<T>({ data, extent, legend = [], gaps = [], summary, table, children }: ChartFrameProps<T> & { readonly data: T }) {
  const t = useMessages();
  const { format } = useServices();
  const [view, setView] = useState(extent);
  const [open, setOpen] = useState(false);
  const shownGaps = gaps.filter((gap) => overlaps(gap, view));
  return (
    <>
      <p className="chart-summary" aria-live="polite">
        {summary(data, view)}
      </p>
      <div className="chart-bar">
        {legend.length > 0 && (
          <ul className="chart-legend" aria-label={t.chart.key}>
            {legend.map((item) => (
              <li key={item.name}>
                <span className={`swatch ${item.swatch}`} aria-hidden="true" />
                {item.name}
              </li>
            ))}
          </ul>
        )}
        <ZoomBar view={view} extent={extent} onView={setView} />
      </div>
      <div className="chart">{children(data, { view, extent, onView: setView })}</div>
      {shownGaps.length > 0 && (
        <div className="chart-gaps">
          <h4>{t.chart.gaps}</h4>
          <ul>
            {shownGaps.map((gap) => (
              <li key={`${gap.from} ${gap.reason}`}>
                <span className="swatch swatch-gap" aria-hidden="true" />
                {format.span(gap.from, gap.to)}: {gap.reason}
              </li>
            ))}
          </ul>
        </div>
      )}
      <details
        className="chart-table"
        onToggle={(event) => {
          setOpen(event.currentTarget.open);
        }}
      >
        <summary>{t.asTable}</summary>
        {open && <div className="chart-table-rows">{table(data, view)}</div>}
      </details>
    </>
  );
}

function ZoomBar({ view, extent, onView }: ChartView) {
  const t = useMessages();
  const { format } = useServices();
  const keys = useId();
  const middle = (view.from + view.to) / 2;
  const whole = isWhole(view, extent);
  const closer = () => {
    onView(zoomed(view, extent, ZOOM, middle));
  };
  const farther = () => {
    onView(zoomed(view, extent, 1 / ZOOM, middle));
  };
  const by = (share: number) => () => {
    onView(moved(view, extent, share));
  };
  const all = () => {
    onView(extent);
  };
  const onKey = (event: KeyboardEvent) => {
    const act = { '+': closer, '=': closer, '-': farther, ArrowLeft: by(-MOVE), ArrowRight: by(MOVE), '0': all, Home: all }[event.key];
    if (act === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  };
  return (
    <div className="chart-zoom" role="toolbar" aria-label={t.chart.zoom} aria-describedby={keys} tabIndex={-1} onKeyDown={onKey}>
      <span id={keys} className="visually-hidden">
        {t.chart.keys}
      </span>
      <span className="visually-hidden" role="status">
        {whole ? '' : t.chart.shown(format.moment(view.from), format.moment(view.to))}
      </span>
      <ZoomButton label={t.chart.earlier} path="M14.5 6 8.5 12l6 6" disabled={view.from <= extent.from} onPress={by(-MOVE)} />
      <ZoomButton label={t.chart.later} path="m9.5 6 6 6-6 6" disabled={view.to >= extent.to} onPress={by(MOVE)} />
      <ZoomButton label={t.chart.zoomOut} path="M6 12h12" disabled={whole} onPress={farther} />
      <ZoomButton label={t.chart.zoomIn} path="M12 6v12M6 12h12" onPress={closer} />
      <ZoomButton label={t.chart.whole} path="M5 9V5h4M15 5h4v4M19 15v4h-4M9 19H5v-4" disabled={whole} onPress={all} />
    </div>
  );
}

interface ZoomButtonProps {
  readonly label: string;
  readonly path: string;
  readonly disabled?: boolean;
  readonly onPress: () => void;
}

function ZoomButton({ label, path, disabled = false, onPress }: ZoomButtonProps) {
  // aria-disabled rather than disabled: the keyboard must not lose its place when the end is reached.
  return (
    <button
      type="button"
      className="zoom-button"
      aria-label={label}
      title={label}
      aria-disabled={disabled}
      onClick={() => {
        if (!disabled) onPress();
      }}
    >
      <svg viewBox="0 0 24 24" aria-hidden="true" focusable="false">
        <path d={path} />
      </svg>
    </button>
  );
}

/** As high as what will take its place, the table and the summary included. */
export function ChartFrameSkeleton() {
  const t = useMessages();
  return (
    <>
      <p className="chart-summary">{'\u00a0'}</p>
      <div className="chart-bar" />
      <div className="chart">
        <ChartSkeleton />
      </div>
      <p className="chart-table-place" aria-hidden="true">
        {t.asTable}
      </p>
    </>
  );
}
