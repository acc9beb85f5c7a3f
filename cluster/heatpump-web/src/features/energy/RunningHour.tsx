/** The running hour so far, beside the whole of the same hour of the clock yesterday and a week ago. */
import { useQuery } from '@tanstack/react-query';
import type { TimeRange } from '../../lib/chart/range';
import { useServices } from '../../lib/services';
import { sameHour } from '../../lib/time/period';
import { useNow } from '../../lib/time/ticker';
import { MINUTE } from '../../lib/time/zone';
import type { EnergyBar } from './bars';
import { useMessages } from './messages';
import { energySeriesOptions } from './queries';

export function RunningHour({ current }: { readonly current: EnergyBar | undefined }) {
  const t = useMessages();
  const { config, format } = useServices();
  const now = useNow(MINUTE);
  const yesterday = useHour(sameHour(now, 1, config.householdTimeZone));
  const lastWeek = useHour(sameHour(now, 7, config.householdTimeZone));
  const so = current?.usedKwh ?? null;
  const highest = Math.max(so ?? 0, yesterday ?? 0, lastWeek ?? 0, 0.01);
  const minutes = current === undefined ? 0 : Math.max(0, Math.round((now - current.from) / MINUTE));
  const row = (name: string, kwh: number | null, className: string) => (
    <div className={className}>
      <dt>{name}</dt>
      <dd>
        <span className="hour-track" aria-hidden="true">
          <span className="hour-bar" style={{ width: `${(100 * (kwh ?? 0)) / highest}%` }} />
        </span>
        <span className="value">{format.number(kwh, 2)}</span>
        <span className="unit"> kWh</span>
      </dd>
    </div>
  );
  return (
    <dl className="hour" aria-label={t.energy.thisHour} data-testid="running-hour">
      {row(t.energy.thisHourSoFar(minutes), so, 'hour-now')}
      {row(t.energy.yesterday, yesterday, '')}
      {row(t.energy.lastWeek, lastWeek, '')}
    </dl>
  );
}

function useHour(hour: TimeRange | null): number | null {
  const { api } = useServices();
  const range = hour ?? { from: 0, to: 0 };
  const { data } = useQuery({ ...energySeriesOptions(api, 'hour', range), enabled: hour !== null });
  return data?.items[0]?.energy_kwh ?? null;
}
