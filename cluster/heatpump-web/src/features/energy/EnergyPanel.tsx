/** Today's energy: the total, the running hour beside earlier ones, a bar for each hour of the household's day, and the same as a table. */
import { useQuery } from '@tanstack/react-query';
import { Link } from 'react-router';
import { Card } from '../../components/Card';
import { ChartFrame } from '../../components/chart/ChartFrame';
import { Value } from '../../components/Value';
import { useServices } from '../../lib/services';
import { sumKnown } from '../../lib/sum';
import { useNow, useToday } from '../../lib/time/ticker';
import { MINUTE } from '../../lib/time/zone';
import type { EnergyBar } from './bars';
import { EnergyBars } from './EnergyBars';
import { EnergyTable } from './EnergyTable';
import { barLabel } from './labels';
import { useMessages } from './messages';
import { energyTodayOptions } from './queries';
import { RunningHour } from './RunningHour';
import { energyBarsOfToday, type EnergyToday } from './today';
import './energy.css';

export function EnergyPanel() {
  const t = useMessages();
  const { api, config, format } = useServices();
  const zone = config.householdTimeZone;
  const day = useToday(zone);
  const now = useNow(MINUTE);
  const query = useQuery(energyTodayOptions(api, day));
  const bars = query.data === undefined ? [] : energyBarsOfToday(query.data, now, zone);
  const used = format.energy(sumKnown(bars.map((bar) => bar.usedKwh)));
  const sold = sumKnown(bars.map((bar) => bar.soldKwh));
  const label = (bar: EnergyBar) => barLabel(bar, 'hour', { span: 'day' }, t, format, zone);
  const empty = (today: EnergyToday) => today.series.items.length === 0 && Object.keys(today.gained).length === 0;
  return (
    <Card title={t.energy.title} className="energy" aside={<Link to="/energy">{t.energy.more}</Link>}>
      <p className="energy-totals">
        <span data-testid="energy-total">
          <Value value={used.value} unit={used.unit} /> <span className="energy-word">{t.energy.total}</span>
        </span>
        {(sold ?? 0) > 0 && (
          <span>
            <Value value={format.energy(sold).value} unit="kWh" /> <span className="energy-word">{t.energy.exported}</span>
          </span>
        )}
        <span className="energy-date">{format.date(day.start)}</span>
      </p>
      <RunningHour current={bars.find((bar) => bar.running)} />
      <ChartFrame
        title={t.energy.chart(t.energy.buckets.hour)}
        titleHidden
        unit="kWh"
        query={query}
        isEmpty={empty}
        empty={t.energy.empty}
        extent={{ from: day.start, to: day.end }}
        summary={() => {
          const highest = bars.reduce<EnergyBar | null>((best, bar) => ((bar.usedKwh ?? -1) > (best?.usedKwh ?? -1) ? bar : best), null);
          if (highest === null) return t.energy.empty;
          const most = format.energy(highest.usedKwh);
          return t.energy.summary(`${most.value} ${most.unit}`, label(highest)) + (bars.some((bar) => bar.estimated) ? ` ${t.energy.paleIsEstimated}` : '');
        }}
        table={() => <EnergyTable bars={bars} unit={t.energy.buckets.hour} label={label} />}
      >
        {(_, chart) => <EnergyBars {...chart} bars={bars} label={label} gaps={NONE} />}
      </ChartFrame>
    </Card>
  );
}

const NONE: readonly never[] = [];
