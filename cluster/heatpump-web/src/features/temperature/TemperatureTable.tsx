/** The readings of the last 24 hours as they were made, newest first: for whoever cannot or will not read a chart. */
import { useState } from 'react';
import { useMessages } from '../../i18n/messages';
import { useServices } from '../../lib/services';
import type { RoomHistory } from './history';

/** What a person reads; the whole day is in the CSV of the API. */
const ROWS = 200;

interface TemperatureTableProps {
  readonly names: readonly string[];
  readonly histories: readonly RoomHistory[];
}

export function TemperatureTable({ names, histories }: TemperatureTableProps) {
  const t = useMessages();
  // Rows are made only for somebody who looks at them.
  const [open, setOpen] = useState(false);
  return (
    <details
      className="chart-table"
      onToggle={(event) => {
        setOpen(event.currentTarget.open);
      }}
    >
      <summary>{t.asTable}</summary>
      {open && <Rows names={names} histories={histories} />}
    </details>
  );
}

function Rows({ names, histories }: TemperatureTableProps) {
  const t = useMessages();
  const { format } = useServices();
  const rows = histories
    .flatMap((history, room) => history.map((point) => ({ ...point, room })))
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
            <th scope="row">{format.clock(row.time)}</th>
            <td>{names[row.room]}</td>
            <td>{format.number(row.celsius, 1)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
