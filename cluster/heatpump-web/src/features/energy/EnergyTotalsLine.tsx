/** What a period comes to: used, sold, its cost, and how it stands to the other period. Its places are there before its figures. */
import { Value } from '../../components/Value';
import { useServices } from '../../lib/services';
import type { EnergyTotals } from './bars';
import { useMessages } from './messages';

interface EnergyTotalsLineProps {
  readonly totals: EnergyTotals;
  readonly sells: boolean;
  readonly compares: boolean;
  readonly loading: boolean;
}

export function EnergyTotalsLine({ totals, sells, compares, loading }: EnergyTotalsLineProps) {
  const t = useMessages();
  const { format } = useServices();
  const used = format.energy(totals.usedKwh);
  const sold = format.energy(totals.soldKwh);
  const other = format.energy(totals.otherKwh);
  return (
    <dl className="energy-figures" aria-busy={loading}>
      <div>
        <dt>{t.energy.used}</dt>
        <dd data-testid="period-used">
          <Value value={used.value} unit={used.unit} />
        </dd>
      </div>
      {sells && (
        <div>
          <dt>{t.energy.sold}</dt>
          <dd>
            <Value value={sold.value} unit={sold.unit} />
          </dd>
        </div>
      )}
      <div>
        <dt>{t.energy.cost}</dt>
        <dd data-testid="period-cost">
          {totals.cost === null ? <span className="energy-unpriced">{loading ? '' : t.energy.noPrice}</span> : <span className="value">{format.money(totals.cost.amount, totals.cost.currency)}</span>}
        </dd>
      </div>
      {compares && (
        <div>
          <dt>{t.energy.compared}</dt>
          <dd data-testid="period-compared">
            <Value value={other.value} unit={other.unit} />
            {totals.change !== null && <span className={totals.change > 0 ? 'energy-more' : 'energy-less'}>{format.change(totals.change)}</span>}
          </dd>
        </div>
      )}
    </dl>
  );
}
