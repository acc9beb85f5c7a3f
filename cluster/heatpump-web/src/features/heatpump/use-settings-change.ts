/**
 * Sending a change of settings: checked here first, based on the state the person saw (If-Match), under a name of its own (Idempotency-Key),
 * and answered with faults at their fields. A change that was accepted is not done: the pump's report alone says that.
 */
import { useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import type { DeviceSettings, FieldError } from '../../api/types';
import { commandsChanged } from '../../components/command/queries';
import { ApiError } from '../../lib/api/client';
import { Wish } from '../../lib/command/wish';
import { useServices } from '../../lib/services';
import { storedDraft, storeDraft } from './draft-store';
import { check, type Draft, type Fault, SETTING_NAMES, type SettingName } from './limits';
import { currentSettings, settingsTagOptions } from './queries';

export type Outcome =
  | { readonly kind: 'idle' | 'sending' | 'sent' | 'nothing' | 'changed' | 'ended' | 'forbidden' | 'faults' }
  | { readonly kind: 'failed'; readonly detail: string };

type Faults = Readonly<Partial<Record<SettingName, Fault | string>>>;

export function useSettingsChange(device: DeviceSettings) {
  const { api } = useServices();
  const client = useQueryClient();
  const [draft, setDraft] = useState<Draft>(() => storedDraft(device.device_id));
  const [faults, setFaults] = useState<Faults>({});
  const [outcome, setOutcome] = useState<Outcome>({ kind: 'idle' });
  const [wish] = useState(() => new Wish());

  const keep = (next: Draft) => {
    setDraft(next);
    storeDraft(device.device_id, next);
  };
  const edit = (name: SettingName, text: string) => {
    keep(text === '' ? without(draft, name) : { ...draft, [name]: text });
    setFaults(without(faults, name));
    if (outcome.kind !== 'sending') setOutcome({ kind: 'idle' });
  };
  const discard = () => {
    keep({});
    setFaults({});
    setOutcome({ kind: 'idle' });
  };

  /** Answers the first field at fault, for the keyboard to go to. */
  const send = async (): Promise<SettingName | null> => {
    const checked = check(draft, currentSettings(device));
    if (checked.faults !== null) {
      setFaults(checked.faults);
      setOutcome({ kind: 'faults' });
      return firstOf(checked.faults);
    }
    setFaults({});
    if (Object.keys(checked.changes).length === 0) {
      keep({});
      setOutcome({ kind: 'nothing' });
      return null;
    }
    setOutcome({ kind: 'sending' });
    const tagOptions = settingsTagOptions(api, device.device_id);
    try {
      const { etag, settings } = await client.query(tagOptions);
      // What the person based the change on must still be what the server has.
      if (differs(settings, device)) {
        await client.invalidateQueries({ queryKey: ['heatpump', 'settings'] });
        setOutcome({ kind: 'changed' });
        return null;
      }
      await api.send('patch', '/api/v1/heatpump/settings/{device_id}', {
        path: { device_id: device.device_id },
        body: checked.changes,
        ifMatch: etag,
        idempotencyKey: wish.key(checked.changes),
      });
      wish.answered();
      keep({});
      setOutcome({ kind: 'sent' });
      await commandsChanged(client, device.device_id);
      return null;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      return refused(error);
    }
  };

  const refused = async (error: ApiError): Promise<SettingName | null> => {
    if (!error.transient && error.status !== 401) wish.answered();
    switch (error.status) {
      case 401:
        setOutcome({ kind: 'ended' });
        return null;
      case 403:
        setOutcome({ kind: 'forbidden' });
        return null;
      case 412:
        await client.invalidateQueries({ queryKey: ['heatpump', 'settings'] });
        setOutcome({ kind: 'changed' });
        return null;
      default: {
        const atFields = faultsOf(error.fields, draft);
        setFaults(atFields);
        // A fault of no field of the form must be read somewhere.
        const everyAtField = error.fields.length > 0 && Object.keys(atFields).length === error.fields.length;
        setOutcome(everyAtField ? { kind: 'faults' } : { kind: 'failed', detail: error.detail === '' ? error.title : error.detail });
        return firstOf(atFields);
      }
    }
  };

  return { draft, faults, outcome, edit, discard, send };
}

function faultsOf(fields: readonly FieldError[], draft: Draft): Faults {
  return Object.fromEntries(fields.filter(({ field }) => field in draft).map(({ field, detail }) => [field, detail]));
}

function without<T extends object>(of: T, name: SettingName): T {
  return Object.fromEntries(Object.entries(of).filter(([key]) => key !== name)) as T;
}

function firstOf(faults: Faults): SettingName | null {
  return (Object.keys(faults) as SettingName[])[0] ?? null;
}

/** Whether the server knows of a report or of a change under way that was not on the screen when the person decided. */
function differs(server: DeviceSettings, seen: DeviceSettings): boolean {
  const newer = (server.reported_at ?? '') > (seen.reported_at ?? '');
  return SETTING_NAMES.some((name) => (newer && server.reported[name] !== seen.reported[name]) || server.wanted[name] !== seen.wanted[name]);
}
