/** The heat pump over time: temperatures with what ran, the integral, and hours and starts per day, over any range up to a year. */
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { Card } from '../../components/Card';
import { useServices } from '../../lib/services';
import { useNow } from '../../lib/time/ticker';
import { DAY, HOUR, localDay } from '../../lib/time/zone';
import { DaysChart } from './DaysChart';
import { HistoryCharts } from './HistoryCharts';
import { HistoryRange, type Picked } from './HistoryRange';
import { useMessages } from './messages';
import { heatpumpLatestOptions } from './queries';
import './history.css';

const SPANS = { day: DAY, week: 7 * DAY, month: 30 * DAY, year: 365 * DAY } as const;

export function HistoryPanel() {
  const t = useMessages();
  const { api, config } = useServices();
  const zone = config.householdTimeZone;
  const [picked, setPicked] = useState<Picked>({ kind: 'day' });
  // To the end of the running hour: the range, and what is zoomed into, stays the same for an hour.
  const end = useNow(HOUR) + HOUR;
  const { data: pumps } = useQuery(heatpumpLatestOptions(api));
  const range = picked.kind === 'own' ? picked.range : { from: end - SPANS[picked.kind], to: end };
  const whole = { from: localDay(range.from, zone).start, to: localDay(range.to - 1, zone).end };
  return (
    <Card title={t.heatpump.history.title} className="heatpump-history">
      <HistoryRange picked={picked} now={end} onPick={setPicked} />
      {pumps?.length === 0 && <p className="empty">{t.heatpump.empty}</p>}
      {pumps?.map(({ deviceId, location }) => (
        <div key={deviceId} className="pump-history" data-device={deviceId}>
          {pumps.length > 1 && <p className="pump-name">{location ?? deviceId}</p>}
          <HistoryCharts deviceId={deviceId} range={range} />
          <DaysChart deviceId={deviceId} range={whole} />
        </div>
      )) ?? <div className="history-blank" />}
    </Card>
  );
}
