/** Energy over a day, a week, a month, a year or any range, beside another such period: bars, totals, cost, a table and a file. */
import { useQuery } from '@tanstack/react-query';
import { useMemo, useState } from 'react';
import { useSearchParams } from 'react-router';
import { Card } from '../../components/Card';
import { ChartFrame, type LegendItem } from '../../components/chart/ChartFrame';
import type { Gap } from '../../components/chart/Plot';
import { Page } from '../../components/Page';
import { ApiError } from '../../lib/api/client';
import { overlaps, type TimeRange } from '../../lib/chart/range';
import { useServices } from '../../lib/services';
import { bucketOf, bucketsOf, compared, dateText, rangeOf } from '../../lib/time/period';
import { useNow, useToday } from '../../lib/time/ticker';
import { localDate, MINUTE } from '../../lib/time/zone';
import { useGaps } from '../gaps/use-gaps';
import { Allowed } from '../session/Allowed';
import { emptyStretches, type EnergyBar, energyBars, totalsOf } from './bars';
import { EnergyBars } from './EnergyBars';
import { EnergyTable } from './EnergyTable';
import { EnergyTotalsLine } from './EnergyTotalsLine';
import { barLabel } from './labels';
import { useMessages } from './messages';
import { addressOf, type Shown, shownOf } from './period-address';
import { PeriodPicker } from './PeriodPicker';
import { ENDPOINTS, energySeriesOptions, energyTodayOptions } from './queries';
import './energy.css';

export default function EnergyPage() {
  const t = useMessages();
  return (
    <Page title={t.pages.energy} className="energy-page">
      <Allowed scope="read:energy">
        <Energy />
      </Allowed>
    </Page>
  );
}

function Energy() {
  const t = useMessages();
  const { api, config } = useServices();
  const zone = config.householdTimeZone;
  const today = localDate(useNow(MINUTE), zone);
  const [address, setAddress] = useSearchParams();
  // The running day's counters carry what they gain into every period that is shown (queries.ts).
  useQuery({ ...energyTodayOptions(api, useToday(zone)), notifyOnChangeProps: [] });
  const shown = useMemo(() => shownOf(address, today), [address, today.year, today.month, today.day]); // eslint-disable-line react-hooks/exhaustive-deps -- a date is its figures
  return (
    <Card title={t.energy.spans[shown.period.span]} className="energy" titleHidden>
      <PeriodPicker
        shown={shown}
        onShow={(next) => {
          setAddress(addressOf(next), { replace: true });
        }}
      >
        <Download shown={shown} />
      </PeriodPicker>
      <Bars shown={shown} />
    </Card>
  );
}

function Bars({ shown }: { readonly shown: Shown }) {
  const t = useMessages();
  const { api, config, format } = useServices();
  const zone = config.householdTimeZone;
  const now = useNow(MINUTE);
  const { period, comparison } = shown;
  const bucket = bucketOf(period);
  const buckets = useMemo(() => bucketsOf(period, zone), [period, zone]);
  const other = useMemo(() => {
    if (comparison === 'none') return null;
    const otherPeriod = compared(period, comparison);
    return { period: otherPeriod, buckets: bucketsOf(otherPeriod, zone, bucket) };
  }, [period, comparison, zone, bucket]);
  const extent = extentOf(buckets);
  const chosen = rangeOf(period, zone);
  const bucketsReachOut = extent.from < chosen.from || extent.to > chosen.to;
  const query = useQuery(energySeriesOptions(api, bucket, extent));
  const otherExtent = extentOf(other?.buckets ?? []);
  const otherQuery = useQuery({ ...energySeriesOptions(api, bucket, otherExtent), enabled: other !== null });
  const items = query.data?.items;
  const otherItems = other === null ? null : otherQuery.data?.items;
  const bars = useMemo(
    () => energyBars(buckets, items ?? [], now, other === null ? null : { buckets: other.buckets, items: otherItems ?? [], bucket, zone }),
    [buckets, items, now, other, otherItems, bucket, zone],
  );
  const known = useGaps(extent, query.data?.devices ?? []);
  const gaps = useMemo(() => withEmpty(known, bars, t.energy.noReading), [known, bars, t]);
  const label = (bar: EnergyBar) => barLabel(bar, bucket, period, t, format, zone);
  const totals = totalsOf(bars, otherItems ?? null);
  const legend: LegendItem[] = [{ name: t.energy.used, swatch: 'swatch-used' }];
  if (bars.some((bar) => (bar.soldKwh ?? 0) > 0)) legend.push({ name: t.energy.sold, swatch: 'swatch-sold' });
  if (bars.some((bar) => bar.estimated)) legend.push({ name: t.energy.estimated, swatch: 'swatch-used bar-estimated' });
  if (other !== null) legend.push({ name: t.energy.comparisons[comparison], swatch: 'swatch-other' });
  return (
    <>
      {bucketsReachOut && <p className="energy-whole">{t.energy.wholeBuckets(t.energy.buckets[bucket], format.days(extent.from, extent.to - 1))}</p>}
      <EnergyTotalsLine totals={totals} sells={legend.some((item) => item.swatch === 'swatch-sold')} compares={other !== null} loading={items === undefined} />
      <ChartFrame
        title={t.energy.chart(t.energy.buckets[bucket])}
        titleHidden
        unit="kWh"
        query={query}
        isEmpty={(series) => series.items.every((item) => item.energy_kwh === null)}
        empty={t.energy.emptyPeriod}
        extent={extent}
        legend={legend}
        gaps={gaps}
        summary={(_, view) => {
          const inView = bars.filter((bar) => overlaps(bar, view) && bar.usedKwh !== null);
          const highest = inView.reduce<EnergyBar | null>((best, bar) => ((bar.usedKwh ?? 0) > (best?.usedKwh ?? -1) ? bar : best), null);
          const total = format.energy(totalsOf(inView, null).usedKwh);
          if (highest === null) return t.energy.emptyPeriod;
          const most = format.energy(highest.usedKwh);
          return t.energy.periodSummary(`${total.value} ${total.unit}`, `${most.value} ${most.unit}`, label(highest));
        }}
        table={(_, view) => <EnergyTable bars={bars.filter((bar) => overlaps(bar, view))} unit={t.energy.buckets[bucket]} label={label} />}
      >
        {(_, chart) => <EnergyBars {...chart} bars={bars} label={label} gaps={gaps} />}
      </ChartFrame>
    </>
  );
}

function extentOf(buckets: readonly TimeRange[]): TimeRange {
  return { from: buckets[0]?.from ?? 0, to: buckets.at(-1)?.to ?? 1 };
}

/** Buckets without a count are gaps too; where the house said why, its reason stands. */
function withEmpty(known: readonly Gap[], bars: readonly EnergyBar[], reason: string): readonly Gap[] {
  const unexplained = emptyStretches(bars).filter((stretch) => !known.some((gap) => gap.from <= stretch.from && gap.to >= stretch.to));
  return [...known, ...unexplained.map((stretch) => ({ ...stretch, reason }))].sort((a, b) => a.from - b.from);
}

function Download({ shown: { period } }: { readonly shown: Shown }) {
  const t = useMessages();
  const { api, config } = useServices();
  const [failure, setFailure] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const save = async () => {
    setBusy(true);
    setFailure(null);
    // What the chart shows, whole months and years included.
    const { from, to } = extentOf(bucketsOf(period, config.householdTimeZone));
    try {
      const query = { from: new Date(from).toISOString(), to: new Date(to).toISOString() };
      const address = URL.createObjectURL(await api.csv(ENDPOINTS[bucketOf(period)], { query }));
      const link = document.createElement('a');
      link.href = address;
      link.download = `energy-${dateText(period.first)}-${dateText(period.last)}.csv`;
      link.click();
      URL.revokeObjectURL(address);
    } catch (error) {
      setFailure(error instanceof ApiError ? error.message : t.energy.downloadFailed);
    } finally {
      setBusy(false);
    }
  };
  return (
    <>
      <button type="button" className="button" onClick={() => void save()} disabled={busy}>
        {t.energy.download}
      </button>
      {failure !== null && (
        <p className="notice" role="alert">
          {failure}
        </p>
      )}
    </>
  );
}
