/** The heat pump at a glance: what it is doing, which parts run, its temperatures and the integral. */
import { useQuery } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { Link } from 'react-router';
import { Blank } from '../../components/Blank';
import { Card } from '../../components/Card';
import { Freshness } from '../../components/Freshness';
import { QueryView } from '../../components/QueryView';
import { Value } from '../../components/Value';
import { useMessages } from './messages';
import { isStale, staleAfter } from '../../lib/live/staleness';
import type { Measured } from '../../lib/live/tracked';
import { useServices } from '../../lib/services';
import { useNow } from '../../lib/time/ticker';
import { activityOf } from './activity';
import { heatpumpLatestOptions, type Pump } from './queries';
import './heatpump.css';

const LIMIT_MS = staleAfter('heatpump');
const OFF: Measured<boolean> = { value: false, time: 0 };
/** What is drawn, without its words, while nothing is known yet. */
const UNKNOWN: Pump = {
  deviceId: '',
  agent: '',
  location: null,
  clock: 'synced',
  time: 0,
  fields: { compressor_on: OFF, hot_water_on: OFF, aux_3kw_on: OFF, aux_6kw_on: OFF, brine_pump_on: OFF, flow_pump_on: OFF },
};

/** `more`: with a way to the page that has everything of it. */
export function HeatpumpPanel({ more = false }: { readonly more?: boolean }) {
  const t = useMessages();
  const { api } = useServices();
  const query = useQuery(heatpumpLatestOptions(api));
  const first = query.data?.[0];
  const alone = query.data?.length === 1;
  return (
    <Card
      title={t.heatpump.title}
      className="heatpump"
      aside={alone && first !== undefined && <Freshness time={first.time} limitMs={LIMIT_MS} clock={first.clock} />}
    >
      <QueryView
        query={query}
        skeleton={
          <Blank>
            <PumpStatus pump={UNKNOWN} named={false} />
          </Blank>
        }
        isEmpty={(pumps) => pumps.length === 0}
        empty={t.heatpump.empty}
      >
        {(pumps) => (
          <>
            {pumps.map((pump) => (
              <PumpStatus key={pump.deviceId} pump={pump} named={pumps.length > 1} />
            ))}
            {more && (
              <p>
                <Link to="/heatpump">{t.heatpump.more}</Link>
              </p>
            )}
          </>
        )}
      </QueryView>
    </Card>
  );
}

function PumpStatus({ pump, named }: { readonly pump: Pump; readonly named: boolean }) {
  const t = useMessages();
  const { format } = useServices();
  const now = useNow();
  const { fields } = pump;
  const activity = activityOf(pump);
  const flow = fields.flow_pump_percent;
  const degrees = (measured: Measured<number> | undefined) => <Value value={format.number(measured?.value, measured !== undefined && !Number.isInteger(measured.value) ? 1 : 0)} unit="°C" />;
  return (
    <div className={isStale(pump.time, now, LIMIT_MS) ? 'pump is-stale' : 'pump'} data-device={pump.deviceId}>
      {named && (
        <p className="pump-name">
          {pump.location ?? pump.deviceId} <Freshness time={pump.time} limitMs={LIMIT_MS} clock={pump.clock} />
        </p>
      )}
      <p className={`pump-activity activity-${activity}`}>{t.heatpump.state[activity]}</p>
      <ul className="pump-parts" aria-label={t.heatpump.parts}>
        <Part name={t.heatpump.compressor} on={fields.compressor_on} />
        <Part name={t.heatpump.hotWaterValve} on={fields.hot_water_on} />
        <Part name={t.heatpump.aux3} on={fields.aux_3kw_on} warm />
        <Part name={t.heatpump.aux6} on={fields.aux_6kw_on} warm />
        <Part name={t.heatpump.brinePump} on={fields.brine_pump_on} />
        <Part name={t.heatpump.flowPump} on={fields.flow_pump_on} {...(flow !== undefined && { detail: `${format.number(flow.value)} %` })} />
      </ul>
      <dl className="pump-values" aria-label={t.heatpump.temperatures}>
        <Reading name={t.heatpump.outdoor}>{degrees(fields.outdoor_c)}</Reading>
        <Reading name={t.heatpump.indoor}>{degrees(fields.indoor_c)}</Reading>
        <Reading name={t.heatpump.hotWater}>{degrees(fields.hot_water_c)}</Reading>
        <Reading name={t.heatpump.supply}>{degrees(fields.supply_c)}</Reading>
        <Reading name={t.heatpump.return}>{degrees(fields.return_c)}</Reading>
        <Reading name={t.heatpump.integral}>
          <span className="value">{format.number(fields.integral?.value)}</span>
          <abbr className="unit" title={t.heatpump.integralUnit}>
            {' '}
            °min
          </abbr>
        </Reading>
        <Reading name={t.heatpump.brineIn}>{degrees(fields.brine_in_c)}</Reading>
        <Reading name={t.heatpump.brineOut}>{degrees(fields.brine_out_c)}</Reading>
      </dl>
    </div>
  );
}

interface PartProps {
  readonly name: string;
  readonly on: Measured<boolean> | undefined;
  /** An electric heater: dear to run, so it stands out. */
  readonly warm?: boolean;
  readonly detail?: string;
}

function Part({ name, on, warm = false, detail }: PartProps) {
  const t = useMessages();
  const state = on === undefined ? 'unknown' : on.value ? 'on' : 'off';
  const word = on === undefined ? t.notReported : on.value ? (detail ?? t.on) : t.off;
  return (
    <li className={`part part-${state}${warm ? ' part-warm' : ''}`}>
      <span className="part-dot" aria-hidden="true" />
      <span className="part-name">{name}</span>
      <span className="part-state">{word}</span>
    </li>
  );
}

function Reading({ name, children }: { readonly name: string; readonly children: ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}
