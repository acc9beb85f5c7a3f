/** The readings of a range as they were made, newest first: for whoever cannot or will not read a chart. */
import type { TimeRange } from '../../lib/chart/range';
import { useServices } from '../../lib/services';
import type { RoomHistory } from './history';
import { useMessages } from './messages';

/** What a person reads; the whole day is in the CSV of the API. */
const ROWS = 200;

interface TemperatureTableProps {
  readonly names: readonly string[];
  readonly histories: readonly RoomHistory[];
  readonly view: TimeRange;
}

export function TemperatureTable({ names, histories, view }: TemperatureTableProps) {
  const t = useMessages();
  const { format } = useServices();
  const rows = histories
    .flatMap((history, room) => history.map((point) => ({ ...point, room })))
    .filter((row) => row.time >= view.from && row.time < view.to)
    .sort((a, b) => b.time - a.time)
    .slice(0, ROWS);
  return (
    <table>
      <thead>
        <tr>
          <th scope="col">{t.temperature.time}</th>
          <th scope="col">{t.temperature.title}</th>
          <th scope="col">°C</th>
        </tr>
      </thead>
      <tbody>
        {rows.map((row) => (
          <tr key={`${row.room} ${row.time}`}>
            <th scope="row">{format.moment(row.time)}</th>
            <td>{names[row.room]}</td>
            <td>{format.number(row.celsius, 1)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
