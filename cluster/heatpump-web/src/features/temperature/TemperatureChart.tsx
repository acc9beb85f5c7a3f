/** The lines of the rooms. Draws what it is given; knows no query. */
import { useCallback, useMemo } from 'react';
import type { ChartView } from '../../components/chart/ChartFrame';
import { type Gap, Plot, type PlotScale } from '../../components/chart/Plot';
import { linePath } from '../../lib/chart/path';
import { axisTicks } from '../../lib/format/ticks';
import { useServices } from '../../lib/services';
import { COLOURS } from './colours';
import type { Moment } from './history';

interface TemperatureChartProps {
  readonly moments: readonly Moment[];
  readonly names: readonly string[];
  readonly gaps: readonly Gap[];
  readonly chart: ChartView;
}

export function TemperatureChart({ moments, names, gaps, chart }: TemperatureChartProps) {
  const { format } = useServices();
  const known = moments.flatMap((moment) => moment.celsius.filter((celsius) => celsius !== null));
  const ticks = axisTicks(Math.floor(Math.min(...known) - 0.5), Math.ceil(Math.max(...known) + 0.5), 6);
  const digits = ticks.every(Number.isInteger) ? 0 : 1;
  const lines = useMemo(
    () => names.map((name, room) => ({ name, room, points: moments.map(({ time, celsius }) => ({ time, value: celsius[room] ?? null })) })),
    [moments, names],
  );
  const draw = useCallback(
    (scale: PlotScale) =>
      lines.map(({ name, room, points }) => (
        <path key={name} className={`plot-series series-${room % COLOURS}${room >= COLOURS ? ' plot-dashed' : ''}`} d={linePath(points, scale)} />
      )),
    [lines],
  );
  return (
    <Plot
      {...chart}
      ticks={ticks}
      gaps={gaps}
      formatTick={(celsius) => `${format.number(celsius, digits)}°`}
      tooltip={(time) => {
        const moment = moments.findLast((one) => one.time <= time);
        if (moment?.celsius.every((celsius) => celsius === null) ?? true) return null;
        return (
          <>
            <p className="tooltip-title">{format.clock(moment?.time ?? time)}</p>
            {names.map((name, room) => {
              const celsius = moment?.celsius[room] ?? null;
              return (
                celsius !== null && (
                  <p key={name}>
                    <span className={`swatch series-${room % COLOURS}`} aria-hidden="true" />
                    {name} {format.number(celsius, 1)} °C
                  </p>
                )
              );
            })}
          </>
        );
      }}
    >
      {draw}
    </Plot>
  );
}
