/** Temperatures by room: the present value with its age, and the lines of the last 24 hours. The tiles are the chart's legend. */
import { useQueries, useQuery } from '@tanstack/react-query';
import { lazy, useMemo } from 'react';
import { AfterPaint } from '../../components/AfterPaint';
import { Blank } from '../../components/Blank';
import { Card } from '../../components/Card';
import { ChartSkeleton } from '../../components/ChartSkeleton';
import { Freshness } from '../../components/Freshness';
import { Problem } from '../../components/Problem';
import { QueryView } from '../../components/QueryView';
import { Value } from '../../components/Value';
import { useMessages } from '../../i18n/messages';
import { isStale, staleAfter } from '../../lib/live/staleness';
import { useServices } from '../../lib/services';
import { useNow } from '../../lib/time/ticker';
import { DAY, MINUTE } from '../../lib/time/zone';
import { COLOURS } from './colours';
import { extremes, moments, type Room, type RoomHistory } from './history';
import { type Sensor, temperatureHistoryOptions, temperatureLatestOptions } from './queries';
import { roomName } from './room-name';
import { TemperatureTable } from './TemperatureTable';
import './temperature.css';

const TemperatureChart = lazy(() => import('./TemperatureChart'));

export function TemperaturePanel() {
  const t = useMessages();
  const { api } = useServices();
  const query = useQuery(temperatureLatestOptions(api));
  return (
    <Card title={t.temperature.title} className="temperature" aside={t.temperature.period}>
      <QueryView
        query={query}
        skeleton={
          <Blank>
            <ul className="rooms">
              {UNKNOWN.map((sensor) => (
                <RoomTile key={sensor.deviceId} sensor={sensor} name="" colour={0} />
              ))}
            </ul>
            <HistoryLoading />
          </Blank>
        }
        isEmpty={(sensors) => sensors.length === 0}
        empty={t.temperature.empty}
      >
        {(sensors) => (
          <>
            <ul className="rooms">
              {sensors.map((sensor, index) => (
                <RoomTile key={sensor.deviceId} sensor={sensor} name={roomName(sensor, sensors)} colour={index % COLOURS} />
              ))}
            </ul>
            <History sensors={sensors} />
          </>
        )}
      </QueryView>
    </Card>
  );
}

function RoomTile({ sensor, name, colour }: { readonly sensor: Sensor; readonly name: string; readonly colour: number }) {
  const t = useMessages();
  const { format } = useServices();
  const now = useNow(MINUTE);
  const { temperature_c: celsius, humidity_percent: humidity, battery_percent: battery } = sensor.fields;
  const time = celsius?.time ?? sensor.time;
  const limitMs = staleLimit(sensor);
  return (
    <li className={isStale(time, now, limitMs) ? 'room is-stale' : 'room'} data-device={sensor.deviceId}>
      <span className="room-name">
        <span className={`swatch series-${colour}`} aria-hidden="true" />
        <span className="room-label">{name}</span>
      </span>
      <span className="room-value">
        <Value value={format.number(celsius?.value, 1)} unit="°C" />
      </span>
      <span className="room-more">
        {humidity !== undefined && <abbr title={t.temperature.humidityLabel}>{t.temperature.humidity(format.number(humidity.value))}</abbr>}
        {battery !== undefined && battery.value > 0 && battery.value <= LOW_BATTERY && (
          <span className="room-battery">{t.temperature.battery(format.number(battery.value))}</span>
        )}
      </span>
      <Freshness time={time} limitMs={limitMs} clock={sensor.clock} />
    </li>
  );
}

/** What is drawn while nothing is known yet: a house of four rooms. */
const UNKNOWN: readonly Sensor[] = ['1', '2', '3', '4'].map((deviceId) => ({
  deviceId,
  agent: '',
  location: '',
  clock: 'synced',
  time: Number.MAX_SAFE_INTEGER / 2 ** 10,
  fields: {},
}));

/** Some weeks are left; a sensor fed by USB reports 0 and is none of it. */
const LOW_BATTERY = 20;

function staleLimit(sensor: Sensor): number {
  return staleAfter('temperature', sensor.fields.wake_period_seconds?.value ?? null);
}

function History({ sensors }: { readonly sensors: readonly Sensor[] }) {
  const t = useMessages();
  const { api, format } = useServices();
  const now = useNow(MINUTE);
  const results = useQueries({ queries: sensors.map((sensor) => temperatureHistoryOptions(api, sensor.deviceId)) });
  const loading = results.some((result) => result.isPending && result.fetchStatus !== 'idle');
  const failed = results.flatMap((result, index) => (result.error !== null && result.data === undefined ? [index] : []));
  const rooms = sensors.map((sensor, index): Room => ({ history: results[index]?.data ?? NONE, maxGapMs: staleLimit(sensor) }));
  const names = sensors.map((sensor) => roomName(sensor, sensors));
  const range = extremes(rooms.map((room) => room.history));
  const retry = () => {
    for (const index of failed) void results[index]?.refetch();
  };
  if (loading) return <HistoryLoading />;
  const problem = failed.length > 0 && (
    <Problem
      title={t.temperature.historyFailed(failed.map((index) => names[index]).join(', '))}
      detail={results[failed[0] ?? 0]?.error?.message ?? ''}
      onRetry={retry}
    />
  );
  if (range === null) return failed.length > 0 ? problem : <p className="empty">{t.temperature.noHistory}</p>;
  return (
    <>
      {problem}
      <figure
        className="chart temperature-chart"
        aria-label={t.temperature.summary(rooms.length, format.number(range.low, 1), format.number(range.high, 1))}
      >
        <AfterPaint fallback={<ChartSkeleton />}>
          <Lines rooms={rooms} names={names} now={now} />
        </AfterPaint>
      </figure>
      <TemperatureTable names={names} histories={rooms.map((room) => room.history)} />
    </>
  );
}

const NONE: RoomHistory = [];

/** As high as the chart and what is under it. */
function HistoryLoading() {
  const t = useMessages();
  return (
    <>
      <div className="chart">
        <ChartSkeleton />
      </div>
      <p className="chart-table-place">{t.asTable}</p>
    </>
  );
}

interface LinesProps {
  readonly rooms: readonly Room[];
  readonly names: readonly string[];
  readonly now: number;
}

function Lines({ rooms, names, now }: LinesProps) {
  // To the end of the running minute: a reading of this second belongs to the picture.
  const data = useMemo(() => moments(rooms, now - DAY, now + MINUTE), [rooms, now]);
  return <TemperatureChart data={data} names={names} />;
}
