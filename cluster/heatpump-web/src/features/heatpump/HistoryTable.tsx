/** The same buckets as the chart, as rows, newest first. Without names of temperatures it has the integral alone. */
import type { HeatpumpPoint } from '../../api/types';
import { useServices } from '../../lib/services';
import { BANDS, shareOf, type TemperatureName } from './history';
import { temperatureText } from './HistoryCharts';
import { useMessages } from './messages';

/** What a person reads; the whole range is in the API's CSV. */
const ROWS = 200;

export function HistoryTable({ points, names }: { readonly points: readonly HeatpumpPoint[]; readonly names: readonly TemperatureName[] }) {
  const t = useMessages();
  const { format } = useServices();
  const rows = points.slice(-ROWS).reverse();
  const bands = names.length === 0 ? [] : BANDS;
  return (
    <>
      {rows.length < points.length && <p className="chart-summary">{t.heatpump.history.tableRows(format.number(ROWS))}</p>}
      <table>
        <thead>
          <tr>
            <th scope="col">{t.heatpump.history.time}</th>
            {names.map((name) => (
              <th key={name} scope="col">
                {temperatureText(name, t)}, °C
              </th>
            ))}
            {bands.map((band) => (
              <th key={band} scope="col">
                {t.heatpump.history.bands[band]}, %
              </th>
            ))}
            {names.length === 0 && <th scope="col">{t.heatpump.integral}, °min</th>}
          </tr>
        </thead>
        <tbody>
          {rows.map((point) => (
            <tr key={point.time}>
              <th scope="row">{format.moment(Date.parse(point.time))}</th>
              {names.map((name) => (
                <td key={name}>{format.number(point[name], 1)}</td>
              ))}
              {bands.map((band) => (
                <td key={band}>{format.number(percent(shareOf(point, band)))}</td>
              ))}
              {names.length === 0 && <td>{format.number(point.integral)}</td>}
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}

function percent(share: number | null): number | null {
  return share === null ? null : 100 * share;
}
