/** Temperatures by room: the present value with its age, and the lines of the last 24 hours. The tiles are the chart's legend. */
import { useQueries, useQuery, type UseQueryResult } from '@tanstack/react-query';
import { useMemo } from 'react';
import { Blank } from '../../components/Blank';
import { Card } from '../../components/Card';
import { ChartFrame, ChartFrameSkeleton, type ChartView } from '../../components/chart/ChartFrame';
import type { Gap } from '../../components/chart/Plot';
import { Freshness } from '../../components/Freshness';
import { type Loaded, QueryView } from '../../components/QueryView';
import { Value } from '../../components/Value';
import { useMessages } from './messages';
import { isStale, staleAfter } from '../../lib/live/staleness';
import { useServices } from '../../lib/services';
import { useNow } from '../../lib/time/ticker';
import { DAY, HOUR, MINUTE } from '../../lib/time/zone';
import { useGaps } from '../gaps/use-gaps';
import { COLOURS } from './colours';
import { extremes, moments, type Room, type RoomHistory } from './history';
import { type Sensor, temperatureHistoryOptions, temperatureLatestOptions } from './queries';
import { roomName } from './room-name';
import { TemperatureChart } from './TemperatureChart';
import { TemperatureTable } from './TemperatureTable';
import './temperature.css';

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
            <ChartFrameSkeleton />
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
  // To the end of the running hour: the range, and what is zoomed into, stays the same for an hour.
  const to = useNow(HOUR) + HOUR;
  const now = useNow(MINUTE);
  const extent = { from: to - DAY, to };
  const gaps = useGaps(extent, NO_DEVICES);
  const query = useQueries({ queries: sensors.map((sensor) => temperatureHistoryOptions(api, sensor.deviceId)), combine: allOf });
  const names = sensors.map((sensor) => roomName(sensor, sensors));
  return (
    <ChartFrame
      title={t.temperature.title}
      titleHidden
      unit="°C"
      query={query}
      isEmpty={(histories) => extremes(histories) === null}
      empty={t.temperature.noHistory}
      extent={extent}
      gaps={gaps}
      summary={(histories, view) => {
        const range = extremes(histories.map((history) => history.filter(({ time }) => time >= view.from && time < view.to)));
        return range === null ? t.temperature.noneShown : t.temperature.summary(histories.length, format.number(range.low, 1), format.number(range.high, 1));
      }}
      table={(histories, view) => <TemperatureTable names={names} histories={histories} view={view} />}
    >
      {(histories, chart) => {
        const rooms = sensors.map((sensor, index): Room => ({ history: histories[index] ?? [], maxGapMs: staleLimit(sensor) }));
        return <Lines rooms={rooms} names={names} gaps={gaps} now={now} chart={chart} />;
      }}
    </ChartFrame>
  );
}

/** Sensors sleep between their readings: that one is not connected is no gap. */
const NO_DEVICES: readonly string[] = [];

/** The rooms as one query: what has come is drawn, the first failure is said, and trying again asks for what failed. */
function allOf(results: readonly UseQueryResult<RoomHistory>[]): Loaded<readonly RoomHistory[]> {
  const pending = results.some((result) => result.isPending && result.fetchStatus !== 'idle');
  const error = results.find((result) => result.error !== null)?.error ?? null;
  const loaded = results.some((result) => result.data !== undefined);
  return {
    data: pending || (!loaded && error !== null) ? undefined : results.map((result) => result.data ?? []),
    error,
    isFetching: results.some((result) => result.isFetching),
    refetch: () => {
      for (const result of results) if (result.error !== null) void result.refetch();
    },
  };
}

interface LinesProps {
  readonly rooms: readonly Room[];
  readonly names: readonly string[];
  readonly gaps: readonly Gap[];
  readonly now: number;
  readonly chart: ChartView;
}

function Lines({ rooms, names, gaps, now, chart }: LinesProps) {
  const { from, to } = chart.extent;
  // To the end of the running minute: a reading of this second belongs to the picture.
  const data = useMemo(() => moments(rooms, from, Math.min(now + MINUTE, to)), [rooms, from, to, now]);
  return <TemperatureChart moments={data} names={names} gaps={gaps} chart={chart} />;
}
