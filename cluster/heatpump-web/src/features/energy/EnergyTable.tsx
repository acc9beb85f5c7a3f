/** The bars as rows, for whoever cannot or will not read a chart. */
import { useServices } from '../../lib/services';
import type { EnergyBar } from './bars';
import { useMessages } from './messages';

interface EnergyTableProps {
  readonly bars: readonly EnergyBar[];
  /** Heading of the first column: hour, day, month or year. */
  readonly unit: string;
  readonly label: (bar: EnergyBar) => string;
}

export function EnergyTable({ bars, unit, label }: EnergyTableProps) {
  const t = useMessages();
  const { format } = useServices();
  const sells = bars.some((bar) => (bar.soldKwh ?? 0) > 0);
  const priced = bars.some((bar) => bar.cost !== null);
  const compares = bars.some((bar) => bar.other !== null);
  return (
    <table>
      <thead>
        <tr>
          <th scope="col">{unit}</th>
          <th scope="col">{t.energy.used} (kWh)</th>
          {sells && <th scope="col">{t.energy.sold} (kWh)</th>}
          {priced && <th scope="col">{t.energy.cost}</th>}
          {compares && <th scope="col">{t.energy.compared} (kWh)</th>}
        </tr>
      </thead>
      <tbody>
        {bars
          .filter((bar) => !bar.future)
          .map((bar) => (
            <tr key={bar.from}>
              <th scope="row">
                {label(bar)}
                {bar.running && ` (${t.energy.running})`}
                {bar.estimated && ` (${t.energy.estimated})`}
              </th>
              <td>{format.number(bar.usedKwh, 2)}</td>
              {sells && <td>{format.number(bar.soldKwh, 2)}</td>}
              {priced && <td>{bar.cost === null || bar.currency === null ? format.number(null) : format.money(bar.cost, bar.currency)}</td>}
              {compares && <td>{format.number(bar.other?.usedKwh, 2)}</td>}
            </tr>
          ))}
      </tbody>
    </table>
  );
}
