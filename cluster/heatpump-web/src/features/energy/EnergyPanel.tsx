/** Today's energy: the total, a bar for each hour of the household's day, and the same as a table. */
import { useQuery } from '@tanstack/react-query';
import { lazy } from 'react';
import { AfterPaint } from '../../components/AfterPaint';
import { Blank } from '../../components/Blank';
import { Card } from '../../components/Card';
import { ChartSkeleton } from '../../components/ChartSkeleton';
import { QueryView } from '../../components/QueryView';
import { Value } from '../../components/Value';
import type { Messages } from '../../i18n/en';
import { useMessages } from '../../i18n/messages';
import type { Format } from '../../lib/format/format';
import { useServices } from '../../lib/services';
import { useNow, useToday } from '../../lib/time/ticker';
import { MINUTE } from '../../lib/time/zone';
import { hourLabel } from './hour-label';
import { energyTodayOptions } from './queries';
import { type EnergyHour, energyHours, type EnergyToday, energyTotals } from './today';
import './energy.css';

const EnergyChart = lazy(() => import('./EnergyChart'));

export function EnergyPanel() {
  const t = useMessages();
  const { api, config, format } = useServices();
  const day = useToday(config.householdTimeZone);
  const query = useQuery(energyTodayOptions(api, day));
  return (
    <Card title={t.energy.title} className="energy" aside={format.date(day.start)}>
      <QueryView
        query={query}
        skeleton={
          <Blank>
            <EnergyShape hours={[]} />
          </Blank>
        }
        isEmpty={(today) => today.series.items.length === 0 && Object.keys(today.gained).length === 0}
        empty={t.energy.empty}
      >
        {(today) => <Today today={today} />}
      </QueryView>
    </Card>
  );
}

function Today({ today }: { readonly today: EnergyToday }) {
  const { config } = useServices();
  const now = useNow(MINUTE);
  return <EnergyShape hours={energyHours(today, now, config.householdTimeZone)} />;
}

/** Without hours it is the empty shape of the same size. */
function EnergyShape({ hours }: { readonly hours: readonly EnergyHour[] }) {
  const t = useMessages();
  const { format } = useServices();
  const totals = energyTotals(hours);
  const used = format.energy(totals.usedKwh);
  const sold = format.energy(totals.soldKwh);
  const sells = (totals.soldKwh ?? 0) > 0;
  return (
    <>
      <p className="energy-totals">
        <span data-testid="energy-total">
          <Value value={used.value} unit={used.unit} /> <span className="energy-word">{t.energy.total}</span>
        </span>
        {sells && (
          <span>
            <Value value={sold.value} unit={sold.unit} /> <span className="energy-word">{t.energy.exported}</span>
          </span>
        )}
        {hours.some((hour) => hour.estimated) && (
          <span className="energy-estimated" title={t.energy.estimatedWhy}>
            {t.energy.estimated}
          </span>
        )}
      </p>
      <figure className="chart energy-chart" aria-label={summary(hours, t, format)}>
        {hours.length === 0 ? (
          <ChartSkeleton />
        ) : (
          <AfterPaint fallback={<ChartSkeleton />}>
            <EnergyChart hours={hours} sells={sells} />
          </AfterPaint>
        )}
      </figure>
      <EnergyTable hours={hours} sells={sells} />
    </>
  );
}

function EnergyTable({ hours, sells }: { readonly hours: readonly EnergyHour[]; readonly sells: boolean }) {
  const t = useMessages();
  const { format } = useServices();
  return (
    <details className="chart-table">
      <summary>{t.asTable}</summary>
      <table>
        <thead>
          <tr>
            <th scope="col">{t.energy.hour}</th>
            <th scope="col">{t.energy.used} (kWh)</th>
            {sells && <th scope="col">{t.energy.sold} (kWh)</th>}
          </tr>
        </thead>
        <tbody>
          {hours
            .filter((hour) => hour.usedKwh !== null || hour.soldKwh !== null)
            .map((hour) => (
              <tr key={hour.start}>
                <th scope="row">
                  {hourLabel(hour, t, format)}
                  {hour.running && ` (${t.energy.running})`}
                  {hour.estimated && ` (${t.energy.estimated})`}
                </th>
                <td>{format.number(hour.usedKwh, 2)}</td>
                {sells && <td>{format.number(hour.soldKwh, 2)}</td>}
              </tr>
            ))}
        </tbody>
      </table>
    </details>
  );
}

function summary(hours: readonly EnergyHour[], t: Messages, format: Format): string {
  const total = format.energy(energyTotals(hours).usedKwh);
  const highest = hours.reduce<EnergyHour | null>((best, hour) => ((hour.usedKwh ?? -1) > (best?.usedKwh ?? -1) ? hour : best), null);
  if (highest === null) return t.energy.empty;
  const most = format.energy(highest.usedKwh);
  return t.energy.summary(`${total.value} ${total.unit}`, `${most.value} ${most.unit}`, format.hour(highest.hour));
}
