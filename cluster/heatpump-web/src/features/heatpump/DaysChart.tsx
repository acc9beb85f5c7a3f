/** Hours of compressor, hot water and electric heater, and compressor starts, day by day. */
import { useQuery } from '@tanstack/react-query';
import { useCallback } from 'react';
import type { HeatpumpDay } from '../../api/types';
import { ChartFrame } from '../../components/chart/ChartFrame';
import { Plot, type PlotScale } from '../../components/chart/Plot';
import { overlaps, type TimeRange } from '../../lib/chart/range';
import { axisTicks } from '../../lib/format/ticks';
import { useServices } from '../../lib/services';
import { auxiliaryHours, BANDS, type BandName } from './history';
import { useMessages } from './messages';
import { heatpumpDaysOptions } from './queries';

interface DaysChartProps {
  readonly deviceId: string;
  readonly range: TimeRange;
}

export function DaysChart({ deviceId, range }: DaysChartProps) {
  const t = useMessages();
  const { api, format } = useServices();
  const query = useQuery(heatpumpDaysOptions(api, deviceId, range));
  const days = query.data ?? NONE;
  const draw = useCallback((scale: PlotScale) => days.map((day) => <DayBars key={day.start} day={day} scale={scale} />), [days]);
  const highest = Math.max(1, ...days.flatMap((day) => BANDS.map((band) => hoursOf(day, band) ?? 0)));
  return (
    <ChartFrame
      title={t.heatpump.history.days}
      unit={t.heatpump.history.hours}
      query={query}
      isEmpty={(answer) => answer.every((day) => day.count === 0)}
      empty={t.heatpump.history.daysEmpty}
      extent={range}
      legend={BANDS.map((band) => ({ name: t.heatpump.history.bands[band], swatch: `swatch-band band-${band}` }))}
      summary={(answer, view) => {
        const shown = answer.filter((day) => overlaps(rangeOf(day), view));
        const hours = shown.reduce((sum, day) => sum + (day.compressor_hours ?? 0), 0);
        const starts = shown.reduce((sum, day) => sum + (day.compressor_starts ?? 0), 0);
        return t.heatpump.history.daysSummary(format.number(hours, 1), format.number(starts), format.number(shown.length));
      }}
      table={(answer, view) => <DaysTable days={answer.filter((day) => overlaps(rangeOf(day), view))} />}
    >
      {(answer, chart) => (
        <Plot
          {...chart}
          ticks={axisTicks(0, highest, 5)}
          formatTick={(value) => format.number(value, highest < 4 ? 1 : 0)}
          tooltip={(time) => {
            const day = answer.find((one) => time >= Date.parse(one.start) && time < Date.parse(one.end));
            if (day === undefined) return null;
            return (
              <>
                <p className="tooltip-title">{format.longDate(Date.parse(day.start))}</p>
                {BANDS.map((band) => (
                  <p key={band}>
                    <span className={`swatch swatch-band band-${band}`} aria-hidden="true" />
                    {t.heatpump.history.bands[band]} {format.number(hoursOf(day, band), 1)} h
                  </p>
                ))}
                <p>{t.heatpump.history.startsOf(format.number(day.compressor_starts))}</p>
              </>
            );
          }}
        >
          {draw}
        </Plot>
      )}
    </ChartFrame>
  );
}

const NONE: readonly HeatpumpDay[] = [];
/** Of a day's width, left free between two days. */
const BETWEEN = 0.2;
/** Beyond this a single day would be a slab. */
const WIDEST_BAR_PX = 36;

function DayBars({ day, scale: { x, y } }: { readonly day: HeatpumpDay; readonly scale: PlotScale }) {
  const { from, to } = rangeOf(day);
  const width = Math.min(((x(to) - x(from)) * (1 - BETWEEN)) / BANDS.length, WIDEST_BAR_PX);
  const left = (x(from) + x(to) - width * BANDS.length) / 2;
  return BANDS.map((band, index) => {
    const top = y(hoursOf(day, band) ?? 0);
    return <rect key={band} className={`band-${band}`} x={left + index * width} y={top} width={Math.max(width - 1, 0.5)} height={Math.max(y(0) - top, 0)} />;
  });
}

function DaysTable({ days }: { readonly days: readonly HeatpumpDay[] }) {
  const t = useMessages();
  const { format } = useServices();
  return (
    <table>
      <thead>
        <tr>
          <th scope="col">{t.heatpump.history.day}</th>
          {BANDS.map((band) => (
            <th key={band} scope="col">
              {t.heatpump.history.bands[band]}, h
            </th>
          ))}
          <th scope="col">{t.heatpump.history.starts}</th>
        </tr>
      </thead>
      <tbody>
        {[...days].reverse().map((day) => (
          <tr key={day.start}>
            <th scope="row">{format.longDate(Date.parse(day.start))}</th>
            {BANDS.map((band) => (
              <td key={band}>{format.number(hoursOf(day, band), 1)}</td>
            ))}
            <td>{format.number(day.compressor_starts)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function rangeOf(day: HeatpumpDay): TimeRange {
  return { from: Date.parse(day.start), to: Date.parse(day.end) };
}

function hoursOf(day: HeatpumpDay, band: BandName): number | null {
  switch (band) {
    case 'compressor':
      return day.compressor_hours;
    case 'hotWater':
      return day.hot_water_hours;
    case 'auxiliary':
      return auxiliaryHours(day);
  }
}
