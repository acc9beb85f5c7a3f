/** A new schedule, or the change of one: weekdays, a time on the house's clock, on or off. Faults stand at their fields. */
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { type SubmitEvent, useEffect, useId, useRef, useState } from 'react';
import type { Schedule } from '../../api/types';
import { ApiError } from '../../lib/api/client';
import { useServices } from '../../lib/services';
import { useMessages } from './messages';
import { bodyOf, draftOf, faultsOf, type ScheduleDraft, type ScheduleFault, toggled } from './schedule-form';

interface ScheduleFormProps {
  readonly plugId: string;
  readonly schedule: Schedule | null;
  readonly zone: string;
  readonly onClose: () => void;
}

export function ScheduleForm({ plugId, schedule, zone, onClose }: ScheduleFormProps) {
  const t = useMessages();
  const { api } = useServices();
  const client = useQueryClient();
  const id = useId();
  const form = useRef<HTMLFormElement>(null);
  const [draft, setDraft] = useState<ScheduleDraft>(() => draftOf(schedule));
  const [faults, setFaults] = useState<readonly ScheduleFault[]>([]);
  const save = useMutation({
    networkMode: 'always',
    mutationFn: async () => {
      const body = bodyOf(draft);
      if (schedule === null) await api.send('post', '/api/v1/plugs/{plug_id}/schedules', { path: { plug_id: plugId }, body });
      else await api.send('patch', '/api/v1/plugs/{plug_id}/schedules/{id}', { path: { plug_id: plugId, id: schedule.id }, body });
    },
    onSuccess: async () => {
      await client.invalidateQueries({ queryKey: ['plug', 'schedules', plugId] });
      onClose();
    },
  });
  useEffect(() => {
    form.current?.querySelector<HTMLElement>('input[type="time"]')?.focus();
  }, []);
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    if (save.isPending) return;
    const found = faultsOf(draft);
    setFaults(found);
    if (found.length === 0) save.mutate();
    else form.current?.querySelector<HTMLElement>(found[0] === 'weekdays' ? 'input[type="checkbox"]' : 'input[type="time"]')?.focus();
  };
  const said = (field: ScheduleFault, own: string): string => {
    if (faults.includes(field)) return own;
    return save.error instanceof ApiError ? (save.error.fields.find((one) => one.field === field)?.detail ?? '') : '';
  };
  const timeFault = said('local_time', t.schedules.faultTime);
  const daysFault = said('weekdays', t.schedules.faultDays);
  return (
    <form ref={form} className="schedule-form" aria-label={schedule === null ? t.schedules.newSchedule : t.schedules.change} noValidate onSubmit={submit}>
      <p>
        <label className="schedule-label" htmlFor={`${id}-time`}>
          {t.schedules.time}
        </label>
        <input
          id={`${id}-time`}
          className="schedule-time"
          type="time"
          value={draft.time}
          aria-describedby={`${id}-zone ${id}-time-fault`}
          aria-invalid={timeFault !== ''}
          onChange={(event) => {
            setDraft({ ...draft, time: event.currentTarget.value });
          }}
        />
        <span id={`${id}-zone`} className="schedule-note">
          {t.schedules.zone(zone)}
        </span>
        <span id={`${id}-time-fault`} className="plug-problem">
          {timeFault}
        </span>
      </p>
      <fieldset className="schedule-days" aria-describedby={`${id}-days-fault`}>
        <legend className="schedule-label">{t.schedules.weekdays}</legend>
        <div className="schedule-week">
          {t.schedules.days.map((name, index) => (
            <label key={name}>
              <input
                type="checkbox"
                aria-label={t.schedules.longDays[index] ?? name}
                checked={draft.weekdays.includes(index + 1)}
                onChange={() => {
                  setDraft({ ...draft, weekdays: toggled(draft.weekdays, index + 1) });
                }}
              />
              <span aria-hidden="true">{name}</span>
            </label>
          ))}
        </div>
        <p id={`${id}-days-fault`} className="plug-problem">
          {daysFault}
        </p>
      </fieldset>
      <fieldset className="choice schedule-action">
        <legend>{t.schedules.action}</legend>
        <div className="choice-options">
          {[true, false].map((on) => (
            <label key={String(on)}>
              <input
                type="radio"
                name={`${id}-on`}
                checked={draft.on === on}
                onChange={() => {
                  setDraft({ ...draft, on });
                }}
              />
              <span>{t.schedules.does(on)}</span>
            </label>
          ))}
        </div>
      </fieldset>
      {save.error !== null && (
        <p className="plug-problem" role="alert">
          {save.error.message}
        </p>
      )}
      <div className="schedule-buttons">
        <button type="submit" className="button button-primary" aria-disabled={save.isPending}>
          {t.schedules.save}
        </button>
        <button type="button" className="button button-quiet" onClick={onClose}>
          {t.schedules.cancel}
        </button>
      </div>
    </form>
  );
}
