/**
 * One pump's settings as a form: for each the reported value, the wanted one while a change is open, what it means and may be, and a place
 * for a new value. Faults stand at their fields; what was typed outlives an ended session.
 */
import { type SubmitEvent, useId, useRef } from 'react';
import type { DeviceSettings } from '../../api/types';
import { useServices } from '../../lib/services';
import { useMay, useSession } from '../session/session-context';
import { useMessages as useSessionMessages } from '../session/messages';
import { type Fault, LIMITS, SETTING_NAMES, type SettingName, stepped } from './limits';
import { useMessages } from './messages';
import { settingValue } from './setting-text';
import { type Outcome, useSettingsChange } from './use-settings-change';

export function SettingsForm({ device }: { readonly device: DeviceSettings }) {
  const t = useMessages();
  const may = useMay('write:settings');
  const form = useRef<HTMLFormElement>(null);
  const { draft, faults, outcome, edit, discard, send } = useSettingsChange(device);
  const count = Object.keys(draft).length;
  const sending = outcome.kind === 'sending';
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (count === 0 || sending) return;
    const first = await send();
    if (first !== null) form.current?.querySelector<HTMLElement>(`[name="${first}"]`)?.focus();
  };
  return (
    <form ref={form} className="settings-form" aria-label={t.settings.form} noValidate onSubmit={(event) => void submit(event)}>
      {!may && (
        <p className="forbidden" data-scope="write:settings">
          {t.settings.readOnly}
        </p>
      )}
      <ul className="settings-fields">
        {SETTING_NAMES.map((name) => (
          <Field key={name} name={name} device={device} text={draft[name]} fault={faults[name]} editable={may} onEdit={edit} />
        ))}
      </ul>
      {may && (
        <div className={count > 0 || sending ? 'settings-send settings-open' : 'settings-send'}>
          <OutcomeLine outcome={outcome} />
          <div className="settings-buttons">
            <button type="submit" className="button button-primary" aria-disabled={count === 0 || sending}>
              {sending ? t.settings.sending : count === 0 ? t.settings.sendNothing : t.settings.send(count)}
            </button>
            {count > 0 && !sending && (
              <button type="button" className="button button-quiet" onClick={discard}>
                {t.settings.discard}
              </button>
            )}
          </div>
        </div>
      )}
    </form>
  );
}

function OutcomeLine({ outcome }: { readonly outcome: Outcome }) {
  const t = useMessages();
  const s = useSessionMessages();
  const session = useSession();
  const text = outcome.kind === 'failed' ? t.settings.outcome.failed(outcome.detail) : outcome.kind === 'idle' || outcome.kind === 'sending' ? '' : t.settings.outcome[outcome.kind];
  const good = outcome.kind === 'sent' || outcome.kind === 'nothing';
  return (
    <div className={good ? 'outcome outcome-good' : 'outcome'} role={good ? 'status' : 'alert'} data-outcome={outcome.kind}>
      {text !== '' && <p>{text}</p>}
      {outcome.kind === 'ended' && (
        <button type="button" className="button" onClick={() => void session.logIn(window.location.pathname + window.location.search)}>
          {s.session.logIn}
        </button>
      )}
    </div>
  );
}

interface FieldProps {
  readonly name: SettingName;
  readonly device: DeviceSettings;
  readonly text: string | undefined;
  readonly fault: Fault | string | undefined;
  readonly editable: boolean;
  readonly onEdit: (name: SettingName, text: string) => void;
}

function Field({ name, device, text, fault, editable, onEdit }: FieldProps) {
  const t = useMessages();
  const { format } = useServices();
  const id = useId();
  const { label, hint } = t.settings.fields[name];
  const { low, high } = LIMITS[name];
  const wanted = device.wanted[name] ?? null;
  const described = `${id}-hint ${id}-fault`;
  const edit = (value: string) => {
    onEdit(name, value);
  };
  return (
    <li className={text === undefined ? 'setting' : 'setting setting-edited'} data-setting={name}>
      <p className="setting-label" id={`${id}-label`}>
        {label}
      </p>
      <p className="setting-reported">
        <span className="visually-hidden">{t.settings.reported}: </span>
        <span className="value">{settingValue(name, device.reported[name], t, format)}</span>
      </p>
      {wanted !== null && (
        <p className="settings-wanted">
          {t.settings.wanted(settingValue(name, wanted, t, format))} <span className="setting-waits">({t.settings.waits})</span>
        </p>
      )}
      <p className="setting-hint" id={`${id}-hint`}>
        {hint} {name !== 'mode' && t.settings.limits(bound(format.number(low), LIMITS[name].unit), bound(format.number(high), LIMITS[name].unit))}
      </p>
      {editable &&
        (name === 'mode' ? (
          <select
            className="setting-input"
            name={name}
            aria-label={t.settings.newValue(label)}
            aria-describedby={described}
            aria-invalid={fault !== undefined}
            value={text ?? ''}
            onChange={(event) => {
              edit(event.currentTarget.value);
            }}
          >
            <option value="">{t.settings.unchanged}</option>
            {t.settings.modes.map((mode, value) => (
              <option key={mode} value={value}>
                {mode}
              </option>
            ))}
          </select>
        ) : (
          <div className="setting-stepper">
            <StepButton
              label={t.settings.less(label)}
              sign={'\u2212'}
              onPress={() => {
                edit(stepped(name, text, wanted ?? device.reported[name], -1));
              }}
            />
            <input
              className="setting-input"
              name={name}
              type="text"
              inputMode="numeric"
              autoComplete="off"
              maxLength={8}
              aria-label={t.settings.newValue(label)}
              aria-describedby={described}
              aria-invalid={fault !== undefined}
              placeholder={NONE}
              value={text ?? ''}
              onChange={(event) => {
                edit(event.currentTarget.value);
              }}
            />
            <StepButton
              label={t.settings.more(label)}
              sign="+"
              onPress={() => {
                edit(stepped(name, text, wanted ?? device.reported[name], 1));
              }}
            />
          </div>
        ))}
      <p className="setting-fault" id={`${id}-fault`}>
        {fault !== undefined && faultText(fault, t, (value) => bound(format.number(value), LIMITS[name].unit))}
      </p>
    </li>
  );
}

/** An empty field changes nothing. */
const NONE = '\u2014';

function bound(value: string, unit: string): string {
  return unit === '' ? value : `${value} ${unit}`;
}

function faultText(fault: Fault | string, t: ReturnType<typeof useMessages>, shown: (value: number) => string): string {
  if (typeof fault === 'string') return fault;
  switch (fault.kind) {
    case 'number':
      return t.settings.faultNumber;
    case 'limits':
      return t.settings.faultLimits(shown(fault.low), shown(fault.high));
    case 'minAboveMax':
      return t.settings.faultMinAboveMax;
  }
}

function StepButton({ label, sign, onPress }: { readonly label: string; readonly sign: string; readonly onPress: () => void }) {
  return (
    <button type="button" className="button step-button" aria-label={label} onClick={onPress}>
      {sign}
    </button>
  );
}
