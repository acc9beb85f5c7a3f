/** Energy by hour of one plug, its power and how long it was on. */
import { useQuery } from '@tanstack/react-query';
import { useId, useState } from 'react';
import type { PlugHour } from '../../api/types';
import { ChartFrame, type ChartView } from '../../components/chart/ChartFrame';
import { Plot, type PlotScale } from '../../components/chart/Plot';
import { overlaps, type TimeRange } from '../../lib/chart/range';
import { axisTicks } from '../../lib/format/ticks';
import { useServices } from '../../lib/services';
import { useNow } from '../../lib/time/ticker';
import { DAY, HOUR } from '../../lib/time/zone';
import { useMessages } from './messages';
import { plugHoursOptions } from './queries';

const SPANS = { day: DAY, week: 7 * DAY, month: 30 * DAY } as const;
type Span = keyof typeof SPANS;

export function PlugHistory({ plugId }: { readonly plugId: string }) {
  const t = useMessages();
  const { api, format } = useServices();
  const [span, setSpan] = useState<Span>('day');
  // To the end of the running hour, so that the range, and with it the query, changes once an hour only.
  const to = useNow(HOUR) + HOUR;
  const range = { from: to - SPANS[span], to };
  const query = useQuery(plugHoursOptions(api, plugId, range));
  return (
    <section className="plug-history">
      <SpanChoice span={span} onSpan={setSpan} />
      <ChartFrame
        title={t.plugs.history}
        unit="kWh"
        query={query}
        isEmpty={(hours) => hours.length === 0}
        empty={t.plugs.historyEmpty}
        extent={range}
        summary={(hours, view) => {
          const shown = within(hours, view);
          const energy = format.energy(sum(shown, (hour) => hour.energy_kwh));
          const peak = format.power(Math.max(0, ...shown.map((hour) => hour.average_power_w ?? 0)));
          return t.plugs.summary(`${energy.value} ${energy.unit}`, format.number(sum(shown, (hour) => hour.on_hours), 1), `${peak.value} ${peak.unit}`);
        }}
        table={(hours, view) => <Hours hours={within(hours, view)} />}
      >
        {(hours, chart) => <Bars hours={hours} chart={chart} />}
      </ChartFrame>
    </section>
  );
}

function SpanChoice({ span, onSpan }: { readonly span: Span; readonly onSpan: (span: Span) => void }) {
  const t = useMessages();
  const name = useId();
  return (
    <fieldset className="choice">
      <legend>{t.plugs.range}</legend>
      <div className="choice-options">
        {(Object.keys(SPANS) as Span[]).map((one) => (
          <label key={one}>
            <input
              type="radio"
              name={name}
              checked={one === span}
              onChange={() => {
                onSpan(one);
              }}
            />
            <span>{t.plugs.ranges[one]}</span>
          </label>
        ))}
      </div>
    </fieldset>
  );
}

function Bars({ hours, chart }: { readonly hours: readonly PlugHour[]; readonly chart: ChartView }) {
  const { format } = useServices();
  const t = useMessages();
  const most = Math.max(0.01, ...hours.map((hour) => hour.energy_kwh ?? 0));
  const ticks = axisTicks(0, most, 4);
  const digits = most < 0.1 ? 3 : most < 1 ? 2 : 1;
  return (
    <Plot
      {...chart}
      ticks={ticks}
      formatTick={(value) => format.number(value, digits)}
      tooltip={(time) => {
        const hour = hours.find((one) => time >= Date.parse(one.start) && time < Date.parse(one.end));
        if (hour === undefined) return null;
        const power = format.power(hour.average_power_w);
        return (
          <>
            <p className="tooltip-title">{format.span(Date.parse(hour.start), Date.parse(hour.end))}</p>
            <p>
              {format.number(hour.energy_kwh, 3)} kWh, {power.value} {power.unit}
            </p>
            <p>
              {t.plugs.onTime}: {format.number(hour.on_hours, 2)}
            </p>
          </>
        );
      }}
    >
      {({ x, y }: PlotScale) =>
        hours.map((hour) => {
          const left = x(Date.parse(hour.start));
          const top = y(hour.energy_kwh ?? 0);
          return <rect key={hour.start} className="plug-bar" x={left} y={top} width={Math.max(x(Date.parse(hour.end)) - left - 1, 1)} height={Math.max(y(0) - top, 0)} />;
        })
      }
    </Plot>
  );
}

function Hours({ hours }: { readonly hours: readonly PlugHour[] }) {
  const t = useMessages();
  const { format } = useServices();
  return (
    <table>
      <thead>
        <tr>
          <th scope="col">{t.plugs.start}</th>
          <th scope="col">{t.plugs.energy}</th>
          <th scope="col">{t.plugs.averagePower}</th>
          <th scope="col">{t.plugs.onTime}</th>
        </tr>
      </thead>
      <tbody>
        {hours.map((hour) => (
          <tr key={hour.start}>
            <th scope="row">{format.span(Date.parse(hour.start), Date.parse(hour.end))}</th>
            <td>
              {format.number(hour.energy_kwh, 3)} {hour.estimated && `(${t.plugs.estimated})`}
            </td>
            <td>{format.number(hour.average_power_w, 0)}</td>
            <td>{format.number(hour.on_hours, 2)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function within(hours: readonly PlugHour[], view: TimeRange): readonly PlugHour[] {
  return hours.filter((hour) => overlaps({ from: Date.parse(hour.start), to: Date.parse(hour.end) }, view));
}

function sum(hours: readonly PlugHour[], value: (hour: PlugHour) => number | null): number {
  return hours.reduce((total, hour) => total + (value(hour) ?? 0), 0);
}
