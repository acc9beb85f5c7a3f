/** The schedules of a plug: what runs when, pause, edit, delete after a question, and a form for a new one. */
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect, useRef, useState } from 'react';
import type { Schedule } from '../../api/types';
import { Blank } from '../../components/Blank';
import { QueryView } from '../../components/QueryView';
import { useServices } from '../../lib/services';
import { useMay } from '../session/session-context';
import { useMessages } from './messages';
import { schedulesOptions } from './queries';
import { dayNames } from './schedule-form';
import { ScheduleForm } from './ScheduleForm';

export function SchedulePanel({ plugId }: { readonly plugId: string }) {
  const t = useMessages();
  const { api } = useServices();
  const may = useMay('write:plugs');
  const query = useQuery(schedulesOptions(api, plugId));
  const [adding, setAdding] = useState(false);
  const add = useRef<HTMLButtonElement>(null);
  const closed = () => {
    setAdding(false);
    add.current?.focus();
  };
  return (
    <section className="schedules" aria-label={`${t.schedules.title}: ${plugId}`}>
      <h3>{t.schedules.title}</h3>
      <QueryView
        query={query}
        skeleton={
          <Blank>
            <p className="schedule-name">
              <span className="value">00:00</span>
            </p>
          </Blank>
        }
        isEmpty={({ items }) => items.length === 0}
        empty={t.schedules.empty}
      >
        {({ items, zone }) => (
          <ul className="schedule-list">
            {items.map((schedule) => (
              <Item key={schedule.id} schedule={schedule} zone={zone} may={may} />
            ))}
          </ul>
        )}
      </QueryView>
      {may && query.data !== undefined && adding && <ScheduleForm plugId={plugId} schedule={null} zone={query.data.zone} onClose={closed} />}
      {may && (
        <button
          ref={add}
          type="button"
          className="button"
          hidden={adding}
          onClick={() => {
            setAdding(true);
          }}
        >
          {t.schedules.add}
        </button>
      )}
      <details className="schedule-daylight">
        <summary>{t.schedules.daylightTitle}</summary>
        <p>{t.schedules.daylight}</p>
        <p>{t.schedules.limit}</p>
      </details>
    </section>
  );
}

interface ItemProps {
  readonly schedule: Schedule;
  readonly zone: string;
  readonly may: boolean;
}

function Item({ schedule, zone, may }: ItemProps) {
  const t = useMessages();
  const { api, format } = useServices();
  const client = useQueryClient();
  const [mode, setMode] = useState<'shown' | 'edited' | 'asked'>('shown');
  const path = { plug_id: schedule.plug_id, id: schedule.id };
  const settled = () => client.invalidateQueries({ queryKey: ['plug', 'schedules', schedule.plug_id] });
  const enable = useMutation({
    networkMode: 'always',
    mutationFn: (enabled: boolean) => api.send('patch', '/api/v1/plugs/{plug_id}/schedules/{id}', { path, body: { enabled } }),
    onSettled: settled,
  });
  const remove = useMutation({
    networkMode: 'always',
    mutationFn: () => api.send('delete', '/api/v1/plugs/{plug_id}/schedules/{id}', { path }),
    onSettled: settled,
  });
  const edit = useRef<HTMLButtonElement>(null);
  const shown = () => {
    setMode('shown');
  };
  const name = t.schedules.name(schedule.local_time, dayNames(schedule.weekdays, t.schedules.days, t.schedules.everyDay), schedule.on);
  const nextRun = schedule.next_run_at ?? null;
  const failure = enable.error ?? remove.error;
  if (mode === 'edited') {
    return (
      <li className="schedule">
        <ScheduleForm plugId={schedule.plug_id} schedule={schedule} zone={zone} onClose={shown} />
      </li>
    );
  }
  return (
    <li className={schedule.enabled ? 'schedule' : 'schedule schedule-paused'} data-schedule={schedule.id}>
      <p className="schedule-name">{name}</p>
      <p className="schedule-next">{nextRun === null ? t.schedules.never : t.schedules.next(format.moment(Date.parse(nextRun)))}</p>
      {may && mode === 'shown' && (
        <div className="schedule-buttons">
          <label className="schedule-enabled">
            <input
              type="checkbox"
              checked={enable.isPending ? enable.variables : schedule.enabled}
              onChange={(event) => {
                enable.mutate(event.currentTarget.checked);
              }}
            />
            {t.schedules.enabled}
          </label>
          <button
            ref={edit}
            type="button"
            className="button button-quiet"
            aria-label={`${t.schedules.edit}: ${name}`}
            onClick={() => {
              setMode('edited');
            }}
          >
            {t.schedules.edit}
          </button>
          <button
            type="button"
            className="button button-quiet"
            aria-label={`${t.schedules.remove}: ${name}`}
            onClick={() => {
              setMode('asked');
            }}
          >
            {t.schedules.remove}
          </button>
        </div>
      )}
      {may && mode === 'asked' && (
        <Question
          pending={remove.isPending}
          onKeep={shown}
          onDelete={() => {
            remove.mutate();
          }}
        />
      )}
      {!may && !schedule.enabled && <p className="schedule-next">{t.schedules.paused}</p>}
      {failure !== null && (
        <p className="plug-problem" role="alert">
          {failure.message}
        </p>
      )}
    </li>
  );
}

interface QuestionProps {
  readonly pending: boolean;
  readonly onKeep: () => void;
  readonly onDelete: () => void;
}

function Question({ pending, onKeep, onDelete }: QuestionProps) {
  const t = useMessages();
  const keep = useRef<HTMLButtonElement>(null);
  // The keyboard lands on the answer that changes nothing.
  useEffect(() => {
    keep.current?.focus();
  }, []);
  return (
    <div className="schedule-question" role="group" aria-label={t.schedules.reallyDelete}>
      <p>{t.schedules.reallyDelete}</p>
      <div className="schedule-buttons">
        <button ref={keep} type="button" className="button" onClick={onKeep}>
          {t.schedules.keep}
        </button>
        <button type="button" className="button button-danger" aria-disabled={pending} onClick={onDelete}>
          {t.schedules.remove}
        </button>
      </div>
    </div>
  );
}
