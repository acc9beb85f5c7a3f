/** Live power: the house's figure, import and export, phases, the last five minutes, and every meter where there are several. */
import { useQuery } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { Blank } from '../../components/Blank';
import { Card } from '../../components/Card';
import { Freshness } from '../../components/Freshness';
import { QueryView } from '../../components/QueryView';
import { Value } from '../../components/Value';
import type { Messages } from './messages';
import { useMessages } from './messages';
import { isStale, staleAfter } from '../../lib/live/staleness';
import { useServices } from '../../lib/services';
import { useNow } from '../../lib/time/ticker';
import { MINUTE } from '../../lib/time/zone';
import { type HousePower, housePower, mainMeters, netPower, type Phase } from './house-power';
import { energyLatestOptions, type Meter } from './queries';
import { extendTrace, type TracePoint, traceShape } from './trace';
import './power.css';

const LIMIT_MS = staleAfter('energy');
const NONE: readonly Meter[] = [];
/** What is drawn while nothing is known yet: the most likely shape, a meter of three phases. */
const UNKNOWN: HousePower = {
  netW: null,
  importW: null,
  exportW: null,
  phases: ([1, 2, 3] as const).map((number) => ({ number, watts: null, volts: null, amperes: null })),
  time: null,
  clock: 'synced',
};

/** `mainIds`: the main meters, once the API has named them. */
export function PowerPanel({ mainIds }: { readonly mainIds: readonly string[] | undefined }) {
  const t = useMessages();
  const { api } = useServices();
  const query = useQuery(energyLatestOptions(api));
  const main = mainMeters(query.data ?? [], mainIds);
  const power = housePower(main);
  return (
    <Card
      title={t.power.title}
      className="power"
      aside={power.time !== null && <Freshness time={power.time} limitMs={LIMIT_MS} clock={power.clock} />}
    >
      <QueryView
        query={query}
        skeleton={
          <Blank>
            <PowerNow power={UNKNOWN} main={NONE} meters={NONE} />
          </Blank>
        }
        isEmpty={(meters) => meters.length === 0}
        empty={t.power.empty}
      >
        {(meters) => <PowerNow power={power} main={main} meters={meters} />}
      </QueryView>
    </Card>
  );
}

interface PowerNowProps {
  readonly power: HousePower;
  readonly main: readonly Meter[];
  readonly meters: readonly Meter[];
}

function PowerNow({ power, main, meters }: PowerNowProps) {
  const t = useMessages();
  const { format } = useServices();
  const now = useNow();
  const trace = useTrace(power);
  const stale = power.time !== null && isStale(power.time, now, LIMIT_MS);
  const shown = format.power(power.netW === null ? null : Math.abs(power.netW));
  const direction = directionOf(power, main, meters, t);
  const imported = format.power(power.importW);
  const exported = format.power(power.exportW);
  return (
    <div className={stale ? 'power-body is-stale' : 'power-body'}>
      <div className="power-now">
        <p className="power-figure" data-testid="house-power">
          <Value value={shown.value} unit={shown.unit} />
        </p>
        <p className="power-direction">{direction}</p>
        <dl className="power-flow">
          <div>
            <dt>{t.power.import}</dt>
            <dd>
              <Value value={imported.value} unit={imported.unit} />
            </dd>
          </div>
          <div>
            <dt>{t.power.export}</dt>
            <dd>
              <Value value={exported.value} unit={exported.unit} />
            </dd>
          </div>
        </dl>
      </div>
      {power.phases.length > 0 && <Phases phases={power.phases} />}
      <Trace trace={trace} />
      {(meters.length > 1 || (meters.length > 0 && main.length === 0)) && <Meters meters={meters} main={main} />}
    </div>
  );
}

function directionOf({ netW }: HousePower, main: readonly Meter[], meters: readonly Meter[], t: Messages): string {
  if (netW === 0) return t.power.balanced;
  if (netW === null) return meters.length > 1 && main.length === 0 ? t.power.noMain : t.notReported;
  return netW > 0 ? t.power.buying : t.power.selling;
}

function Phases({ phases }: { readonly phases: readonly Phase[] }) {
  const t = useMessages();
  const { format } = useServices();
  const largest = Math.max(1, ...phases.map((phase) => Math.abs(phase.watts ?? 0)));
  return (
    <div className="power-phases">
      <h3>{t.power.phases}</h3>
      <ul>
        {phases.map((phase) => {
          const watts = format.power(phase.watts);
          return (
            <li key={phase.number}>
              <span className="phase-name">{t.power.phase(phase.number)}</span>
              <svg className="phase-bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" focusable="false">
                <rect className="phase-track" width="100" height="8" />
                <rect className={(phase.watts ?? 0) < 0 ? 'phase-sold' : 'phase-used'} width={(100 * Math.abs(phase.watts ?? 0)) / largest} height="8" />
              </svg>
              <span className="phase-power">
                <Value value={watts.value} unit={watts.unit} />
              </span>
              <span className="phase-mains">
                {format.number(phase.volts)} {t.power.volts} · {format.number(phase.amperes, 1)} {t.power.amperes}
              </span>
            </li>
          );
        })}
      </ul>
    </div>
  );
}

function Trace({ trace }: { readonly trace: readonly TracePoint[] }) {
  const t = useMessages();
  const { format } = useServices();
  const shape = traceShape(trace);
  const minutes = (shape?.windowMs ?? MINUTE) / MINUTE;
  const text = (watts: number) => {
    const { value, unit } = format.power(watts);
    return `${value} ${unit}`;
  };
  const summary = shape === null ? t.power.traceCollecting : t.power.traceSummary(text(shape.lowW), text(shape.highW), minutes);
  return (
    <figure className="power-trace">
      <figcaption>
        <span>{t.power.trace(minutes)}</span>
        <span className="power-trace-range">{shape === null ? t.power.traceCollecting : `${text(shape.lowW)} – ${text(shape.highW)}`}</span>
      </figcaption>
      <svg viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" aria-label={summary}>
        {shape !== null && (
          <>
            <path className="trace-area" d={shape.area} />
            <path className="trace-line" d={shape.line} />
          </>
        )}
      </svg>
      <div className="power-trace-axis" aria-hidden="true">
        <span>{t.power.traceStart(minutes)}</span>
        <span>{t.power.traceEnd}</span>
      </div>
    </figure>
  );
}

function Meters({ meters, main }: { readonly meters: readonly Meter[]; readonly main: readonly Meter[] }) {
  const t = useMessages();
  const { format } = useServices();
  return (
    <div className="power-meters">
      <h3>{t.power.meters}</h3>
      <ul>
        {meters.map((meter) => {
          const power = netPower(meter);
          const shown = format.power(power?.value);
          return (
            <li key={meter.deviceId} data-device={meter.deviceId}>
              <span className="meter-name">
                {meter.location ?? meter.deviceId}
                {main.includes(meter) && <span className="meter-role">{t.power.partOfHouse}</span>}
              </span>
              <span className="meter-power">
                <Value value={shown.value} unit={shown.unit} />
              </span>
              <Freshness time={power?.time ?? meter.time} limitMs={LIMIT_MS} clock={meter.clock} />
            </li>
          );
        })}
      </ul>
    </div>
  );
}

function useTrace({ netW, time }: HousePower): readonly TracePoint[] {
  const [trace, setTrace] = useState<readonly TracePoint[]>([]);
  useEffect(() => {
    if (netW === null || time === null) return;
    // eslint-disable-next-line react-hooks/set-state-in-effect -- the trace is a log of what was shown, which only an effect can see
    setTrace((earlier) => extendTrace(earlier, { time, watts: netW }));
  }, [netW, time]);
  return trace;
}
