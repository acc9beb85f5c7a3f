/** Energy as bars: used upwards, sold downwards, the other period as a pale bar behind. Draws what it is given; knows no query. */
import { useCallback, useMemo } from 'react';
import { type Gap, Plot, type PlotScale } from '../../components/chart/Plot';
import type { ChartView } from '../../components/chart/ChartFrame';
import { overlaps } from '../../lib/chart/range';
import { axisTicks } from '../../lib/format/ticks';
import { useServices } from '../../lib/services';
import type { EnergyBar } from './bars';
import { useMessages } from './messages';

/** A house that used next to nothing is drawn as one, not blown up. */
const LEAST_KWH = 0.5;

interface EnergyBarsProps extends ChartView {
  readonly bars: readonly EnergyBar[];
  readonly label: (bar: EnergyBar) => string;
  readonly gaps: readonly Gap[];
}

export function EnergyBars({ bars, label, gaps, ...chart }: EnergyBarsProps) {
  const { format } = useServices();
  const shown = useMemo(() => bars.filter((bar) => overlaps(bar, chart.view)), [bars, chart.view]);
  const highest = Math.max(LEAST_KWH, ...shown.flatMap((bar) => [bar.usedKwh ?? 0, bar.other?.usedKwh ?? 0]));
  const lowest = -Math.max(0, ...shown.map((bar) => bar.soldKwh ?? 0));
  const ticks = axisTicks(lowest, highest, 5);
  const digits = highest - lowest < 3 ? 1 : 0;
  const draw = useCallback((scale: PlotScale) => shown.map((bar) => <Bar key={bar.from} bar={bar} scale={scale} />), [shown]);
  return (
    <Plot
      {...chart}
      ticks={ticks}
      // Sold is drawn downwards but is no negative energy.
      formatTick={(kwh) => format.number(Math.abs(kwh), digits)}
      gaps={gaps}
      tooltip={(time) => {
        const bar = shown.find(({ from, to }) => time >= from && time < to);
        return bar === undefined || bar.future ? null : <BarTooltip bar={bar} label={label(bar)} />;
      }}
    >
      {draw}
    </Plot>
  );
}

function Bar({ bar, scale }: { readonly bar: EnergyBar; readonly scale: PlotScale }) {
  const left = scale.x(bar.from);
  const width = scale.x(bar.to) - left;
  // A twelfth of air on either side, and a hair at least, so that bars stay apart.
  const air = Math.min(Math.max(width / 12, 0.5), 8);
  const column = (kwh: number, inset: number) => ({
    x: left + inset,
    width: Math.max(width - 2 * inset, 1),
    y: Math.min(scale.y(kwh), scale.y(0)),
    height: Math.abs(scale.y(kwh) - scale.y(0)),
  });
  const other = bar.other?.usedKwh ?? null;
  // In front of another bar it is narrower, so that both are seen whichever is higher.
  const inset = bar.other === null ? air : air + width / 5;
  const className = bar.estimated ? 'energy-bar bar-estimated' : 'energy-bar';
  return (
    <>
      {other !== null && <rect className="energy-bar-other" {...column(other, air)} />}
      {bar.usedKwh !== null && <rect className={className} {...column(bar.usedKwh, inset)} />}
      {bar.soldKwh !== null && bar.soldKwh > 0 && <rect className="energy-bar-sold" {...column(-bar.soldKwh, inset)} />}
    </>
  );
}

function BarTooltip({ bar, label }: { readonly bar: EnergyBar; readonly label: string }) {
  const t = useMessages();
  const { format } = useServices();
  return (
    <>
      <p className="tooltip-title">
        {label}
        {bar.running && ` (${t.energy.running})`}
      </p>
      <p>
        {t.energy.used} {format.number(bar.usedKwh, 2)} kWh
        {bar.estimated && `, ${t.energy.estimated}`}
      </p>
      {(bar.soldKwh ?? 0) > 0 && (
        <p>
          {t.energy.sold} {format.number(bar.soldKwh, 2)} kWh
        </p>
      )}
      {bar.cost !== null && bar.currency !== null && <p>{format.money(bar.cost, bar.currency)}</p>}
      {bar.other !== null && (
        <p className="tooltip-other">
          {t.energy.compared} {format.number(bar.other.usedKwh, 2)} kWh
        </p>
      )}
    </>
  );
}
