/** Temperatures with compressor, hot water and auxiliary heat as bands above them, and the integral, from one answer. */
import { useQuery } from '@tanstack/react-query';
import { useCallback, useMemo } from 'react';
import type { HeatpumpPoint, HeatpumpSeries } from '../../api/types';
import { ChartFrame, type ChartView } from '../../components/chart/ChartFrame';
import { type Gap, Plot, type PlotScale } from '../../components/chart/Plot';
import { linePath } from '../../lib/chart/path';
import type { TimeRange } from '../../lib/chart/range';
import { axisTicks } from '../../lib/format/ticks';
import { useServices } from '../../lib/services';
import { useGaps } from '../gaps/use-gaps';
import { BANDS, bandsOf, extremesOf, hoursOf, lineOf, silences, TEMPERATURES, type TemperatureName, within } from './history';
import { HistoryTable } from './HistoryTable';
import { type Messages, useMessages } from './messages';
import { heatpumpHistoryOptions } from './queries';

/** Height of one band and the room between two, in pixels. */
const BAND_PX = 6;
const BAND_STEP_PX = 9;

interface HistoryChartsProps {
  readonly deviceId: string;
  readonly range: TimeRange;
}

export function HistoryCharts({ deviceId, range }: HistoryChartsProps) {
  const t = useMessages();
  const { api, format } = useServices();
  const query = useQuery(heatpumpHistoryOptions(api, deviceId, range));
  const gaps = useEveryGap(deviceId, range, query.data);
  const names = TEMPERATURES.filter((name) => query.data?.items.some((point) => point[name] !== null) ?? true);
  const common = { query, isEmpty: (series: HeatpumpSeries) => series.items.length === 0, empty: t.heatpump.history.empty, extent: range, gaps };
  const degrees = (value: number | undefined) => `${format.number(value, 1)} °C`;
  return (
    <>
      <ChartFrame
        {...common}
        title={t.heatpump.history.lines}
        unit="°C"
        legend={[
          ...BANDS.map((band) => ({ name: t.heatpump.history.bands[band], swatch: `swatch-band band-${band}` })),
          ...names.map((name) => ({ name: temperatureText(name, t), swatch: `series-${TEMPERATURES.indexOf(name)}` })),
        ]}
        summary={(series, view) => {
          const points = within(series.items, view);
          const outdoor = extremesOf(points, [(point) => point.outdoor_c]);
          const indoor = extremesOf(points, [(point) => point.indoor_c]);
          const hours = BANDS.map((band) => format.number(hoursOf(points, band, resolutionOf(series)), 1));
          const inside = indoor === null ? degrees(undefined) : `${format.number(indoor.low, 1)} \u2013 ${degrees(indoor.high)}`;
          return t.heatpump.history.summary(degrees(outdoor?.low), degrees(outdoor?.high), inside, hours[0] ?? '', hours[1] ?? '', hours[2] ?? '');
        }}
        table={(series, view) => <HistoryTable points={within(series.items, view)} names={names} />}
      >
        {(series, chart) => <Temperatures series={series} names={names} gaps={gaps} chart={chart} />}
      </ChartFrame>
      <ChartFrame
        {...common}
        title={t.heatpump.integral}
        unit="°min"
        summary={(series, view) => {
          const extremes = extremesOf(within(series.items, view), [(point) => point.integral]);
          return t.heatpump.history.integralSummary(format.number(extremes?.low), format.number(extremes?.high));
        }}
        table={(series, view) => <HistoryTable points={within(series.items, view)} names={[]} />}
      >
        {(series, chart) => <Integral series={series} gaps={gaps} chart={chart} />}
      </ChartFrame>
    </>
  );
}

export function temperatureText(name: TemperatureName, t: Messages): string {
  const texts = {
    outdoor_c: t.heatpump.outdoor,
    indoor_c: t.heatpump.indoor,
    supply_c: t.heatpump.supply,
    return_c: t.heatpump.return,
    hot_water_c: t.heatpump.hotWater,
    brine_in_c: t.heatpump.brineIn,
    brine_out_c: t.heatpump.brineOut,
  };
  return texts[name];
}

function resolutionOf(series: HeatpumpSeries): number {
  return series.resolution_seconds * 1000;
}

/** What the house said was lost, and the silences it said nothing of. */
function useEveryGap(deviceId: string, range: TimeRange, series: HeatpumpSeries | undefined): readonly Gap[] {
  const t = useMessages();
  const known = useGaps(range, [deviceId]);
  return useMemo(() => {
    const silent = series === undefined ? [] : silences(series.items, resolutionOf(series));
    const unexplained = silent.filter((gap) => !known.some((one) => one.from < gap.to && gap.from < one.to));
    return [...known, ...unexplained.map((gap) => ({ ...gap, reason: t.heatpump.history.silent }))].sort((a, b) => a.from - b.from);
  }, [known, series, t]);
}

interface DrawnProps {
  readonly series: HeatpumpSeries;
  readonly gaps: readonly Gap[];
  readonly chart: ChartView;
}

function Temperatures({ series, names, gaps, chart }: DrawnProps & { readonly names: readonly TemperatureName[] }) {
  const t = useMessages();
  const { format } = useServices();
  const resolution = resolutionOf(series);
  const known = extremesOf(series.items, names.map((name) => (point: HeatpumpPoint) => point[name])) ?? { low: 0, high: 1 };
  // Room at the top for the bands, which must not be taken for temperatures.
  const ticks = axisTicks(known.low, known.high + 0.2 * (known.high - known.low), 6);
  const drawing = useMemo(
    () => ({
      bands: BANDS.map((band) => ({ band, stretches: bandsOf(series.items, band, resolution) })),
      lines: names.map((name) => ({ name, points: lineOf(series.items, (point) => point[name], resolution) })),
    }),
    [series, names, resolution],
  );
  const draw = useCallback(
    (scale: PlotScale) => (
      <>
        {drawing.bands.map(({ band, stretches }, lane) =>
          stretches.map(({ from, to, share }) => (
            <rect
              key={`${band} ${from}`}
              className={`band-${band}`}
              opacity={0.3 + 0.7 * share}
              x={scale.x(from)}
              width={Math.max(scale.x(to) - scale.x(from), 1)}
              y={scale.top + lane * BAND_STEP_PX}
              height={BAND_PX}
            />
          )),
        )}
        {drawing.lines.map(({ name, points }) => (
          <path key={name} className="history-line" stroke={`var(--series-${TEMPERATURES.indexOf(name)})`} d={linePath(points, scale)} />
        ))}
      </>
    ),
    [drawing],
  );
  return (
    <Plot
      {...chart}
      ticks={ticks}
      gaps={gaps}
      formatTick={(value) => `${format.number(value)}°`}
      tooltip={(time) => {
        const point = pointAt(series, time);
        if (point === null) return null;
        return (
          <>
            <p className="tooltip-title">{format.moment(Date.parse(point.time))}</p>
            {names.map((name) => (
              <p key={name}>
                <span className={`swatch series-${TEMPERATURES.indexOf(name)}`} aria-hidden="true" />
                {temperatureText(name, t)} {format.number(point[name], 1)} °C
              </p>
            ))}
          </>
        );
      }}
    >
      {draw}
    </Plot>
  );
}

function Integral({ series, gaps, chart }: DrawnProps) {
  const { format } = useServices();
  const points = useMemo(() => lineOf(series.items, (point) => point.integral, resolutionOf(series)), [series]);
  const known = extremesOf(series.items, [(point) => point.integral]) ?? { low: -1, high: 0 };
  const draw = useCallback((scale: PlotScale) => <path className="history-line" stroke="var(--series-4)" d={linePath(points, scale)} />, [points]);
  return (
    <Plot
      {...chart}
      ticks={axisTicks(Math.min(known.low, 0), Math.max(known.high, 0), 5)}
      gaps={gaps}
      formatTick={(value) => format.number(value)}
      tooltip={(time) => {
        const point = pointAt(series, time);
        return point === null ? null : `${format.moment(Date.parse(point.time))}: ${format.number(point.integral)} °min`;
      }}
    >
      {draw}
    </Plot>
  );
}

function pointAt(series: HeatpumpSeries, time: number): HeatpumpPoint | null {
  const resolution = resolutionOf(series);
  return series.items.find((point) => time >= Date.parse(point.time) && time < Date.parse(point.time) + resolution) ?? null;
}
