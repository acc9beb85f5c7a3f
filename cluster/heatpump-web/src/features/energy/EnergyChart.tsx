/** The bars of a day, loaded with the chart library after the first paint. Draws what it is given; knows no query. */
import { Bar, BarChart, type BarShapeProps, CartesianGrid, Rectangle, ResponsiveContainer, Tooltip, type TooltipContentProps, XAxis, YAxis } from 'recharts';
import { useMessages } from '../../i18n/messages';
import { axisTicks } from '../../lib/format/ticks';
import { useServices } from '../../lib/services';
import { hourLabel } from './hour-label';
import type { EnergyHour } from './today';

/** A house that used next to nothing is drawn as one, not blown up. */
const LEAST_KWH = 0.5;

interface EnergyChartProps {
  readonly hours: readonly EnergyHour[];
  readonly sells: boolean;
}

export default function EnergyChart({ hours, sells }: EnergyChartProps) {
  const { format } = useServices();
  const highest = Math.max(LEAST_KWH, ...hours.flatMap((hour) => [hour.usedKwh ?? 0, hour.soldKwh ?? 0]));
  const ticks = axisTicks(0, highest, 4);
  return (
    <ResponsiveContainer width="100%" height="100%">
      <BarChart data={[...hours]} margin={{ top: 8, right: 4, bottom: 0, left: 0 }} barCategoryGap="18%" barGap={1}>
        <CartesianGrid vertical={false} stroke="var(--line)" />
        <XAxis
          dataKey="start"
          ticks={hours.filter((hour) => hour.hour % 6 === 0 && !hour.repeated).map((hour) => hour.start)}
          tickFormatter={(start: number) => format.hour(hours.find((hour) => hour.start === start)?.hour ?? 0)}
          interval={0}
          height={24}
          tickLine={false}
          axisLine={{ stroke: 'var(--line-strong)' }}
        />
        <YAxis
          width={40}
          domain={[0, ticks.at(-1) ?? highest]}
          ticks={[...ticks]}
          tickLine={false}
          axisLine={false}
          tickFormatter={(kwh: number) => format.number(kwh, highest < 3 ? 1 : 0)}
        />
        <Tooltip cursor={{ fill: 'var(--hover)' }} isAnimationActive={false} content={HourTooltip} />
        <Bar dataKey="usedKwh" fill="var(--used)" isAnimationActive={false} radius={[2, 2, 0, 0]} shape={HourBar} />
        {sells && <Bar dataKey="soldKwh" fill="var(--sold)" isAnimationActive={false} radius={[2, 2, 0, 0]} />}
      </BarChart>
    </ResponsiveContainer>
  );
}

function HourBar(props: BarShapeProps) {
  const hour = props.payload as EnergyHour;
  return <Rectangle {...props} className={hour.estimated ? 'bar-estimated' : ''} />;
}

function HourTooltip({ active, payload }: TooltipContentProps) {
  const t = useMessages();
  const { format } = useServices();
  const hour = payload[0]?.payload as EnergyHour | undefined;
  if (!active || hour === undefined) return null;
  return (
    <div className="tooltip">
      <p className="tooltip-title">
        {hourLabel(hour, t, format)}
        {hour.running && ` (${t.energy.running})`}
      </p>
      <p>
        {t.energy.used} {format.number(hour.usedKwh, 2)} kWh
      </p>
      {(hour.soldKwh ?? 0) > 0 && (
        <p>
          {t.energy.sold} {format.number(hour.soldKwh, 2)} kWh
        </p>
      )}
    </div>
  );
}
