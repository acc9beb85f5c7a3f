/** The lines of a day, loaded with the chart library after the first paint. Draws what it is given; knows no query. */
import { CartesianGrid, type DotItemDotProps, Line, LineChart, ResponsiveContainer, Tooltip, type TooltipContentProps, XAxis, YAxis } from 'recharts';
import { axisTicks } from '../../lib/format/ticks';
import { useServices } from '../../lib/services';
import { hoursOfDay } from '../../lib/time/zone';
import { COLOURS } from './colours';
import type { Moment } from './history';

interface TemperatureChartProps {
  readonly data: readonly Moment[];
  readonly names: readonly string[];
}

export default function TemperatureChart({ data, names }: TemperatureChartProps) {
  const { config, format } = useServices();
  const known = data.flatMap((moment) => moment.celsius.filter((celsius) => celsius !== null));
  // Half a degree of air on either side, so that a steady room is not drawn as a drama.
  const degrees = axisTicks(Math.floor(Math.min(...known) - 0.5), Math.ceil(Math.max(...known) + 0.5), 6);
  const digits = degrees.every(Number.isInteger) ? 0 : 1;
  const from = data[0]?.time ?? 0;
  const to = data.at(-1)?.time ?? 0;
  // Ticks at 00, 06, 12 and 18 of the household's clock, whatever the day's length.
  const ticks = [from, to]
    .flatMap((instant) => hoursOfDay(instant, config.householdTimeZone))
    .filter((hour) => hour.hour % 6 === 0 && !hour.repeated && hour.start >= from && hour.start <= to)
    .map((hour) => hour.start);
  return (
    <ResponsiveContainer width="100%" height="100%">
      <LineChart data={[...data]} margin={{ top: 8, right: 8, bottom: 0, left: 0 }}>
        <CartesianGrid vertical={false} stroke="var(--line)" />
        <XAxis
          dataKey="time"
          type="number"
          scale="time"
          domain={[from, to]}
          ticks={[...new Set(ticks)]}
          tickFormatter={(time: number) => format.clock(time)}
          height={24}
          tickLine={false}
          axisLine={{ stroke: 'var(--line-strong)' }}
        />
        <YAxis
          width={40}
          tickLine={false}
          axisLine={false}
          domain={[degrees[0] ?? 0, degrees.at(-1) ?? 0]}
          ticks={[...degrees]}
          tickFormatter={(celsius: number) => `${format.number(celsius, digits)}°`}
        />
        <Tooltip isAnimationActive={false} cursor={{ stroke: 'var(--line-strong)' }} content={(props) => <MomentTooltip {...props} names={names} />} />
        {names.map((name, room) => (
          <Line
            key={name}
            name={name}
            dataKey={(moment: Moment) => moment.celsius[room] ?? null}
            className={`line-${room % COLOURS}`}
            stroke={`var(--series-${room % COLOURS})`}
            {...(room >= COLOURS && { strokeDasharray: '5 3' })}
            strokeWidth={2}
            type="linear"
            dot={(dot: DotItemDotProps) => <Alone key={dot.index} dot={dot} data={data} room={room} />}
            activeDot={{ r: 3.5 }}
            isAnimationActive={false}
          />
        ))}
      </LineChart>
    </ResponsiveContainer>
  );
}

/** A line needs two points: a value with nothing on either side is a dot. */
function Alone({ dot, data, room }: { readonly dot: DotItemDotProps; readonly data: readonly Moment[]; readonly room: number }) {
  const known = (index: number) => (data[index]?.celsius[room] ?? null) !== null;
  if (!known(dot.index) || known(dot.index - 1) || known(dot.index + 1)) return null;
  return <circle cx={dot.cx ?? 0} cy={dot.cy ?? 0} r={3} fill={`var(--series-${room % COLOURS})`} />;
}

function MomentTooltip({ active, payload, names }: TooltipContentProps & { readonly names: readonly string[] }) {
  const { format } = useServices();
  const moment = payload[0]?.payload as Moment | undefined;
  if (!active || moment === undefined) return null;
  return (
    <div className="tooltip">
      <p className="tooltip-title">{format.clock(moment.time)}</p>
      {names.map((name, room) => {
        const celsius = moment.celsius[room] ?? null;
        if (celsius === null) return null;
        return (
          <p key={name}>
            <span className={`swatch series-${room % COLOURS}`} aria-hidden="true" />
            {name} {format.number(celsius, 1)} °C
          </p>
        );
      })}
    </div>
  );
}
