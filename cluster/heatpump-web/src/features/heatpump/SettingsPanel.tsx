/** The settings the pump reports, and beside them what is wanted while a change is open. Reads only; changing has its own page later. */
import { useQuery } from '@tanstack/react-query';
import type { DeviceSettings, HeatpumpSettings } from '../../api/types';
import { Blank } from '../../components/Blank';
import { Card } from '../../components/Card';
import { Freshness } from '../../components/Freshness';
import { QueryView } from '../../components/QueryView';
import type { Messages } from '../../i18n/en';
import { useMessages } from '../../i18n/messages';
import { type Format, NOTHING } from '../../lib/format/format';
import { staleAfter } from '../../lib/live/staleness';
import { useServices } from '../../lib/services';
import { heatpumpSettingsOptions, NOT_REPORTED } from './queries';
import './heatpump.css';

/** What is drawn while nothing is known yet. */
const UNKNOWN: DeviceSettings = { device_id: '', agent: null, reported: NOT_REPORTED, reported_at: null, wanted: {} };

export function SettingsPanel() {
  const t = useMessages();
  const { api } = useServices();
  const query = useQuery(heatpumpSettingsOptions(api));
  const first = query.data?.[0];
  const reportedAt = query.data?.length === 1 ? (first?.reported_at ?? null) : null;
  return (
    <Card
      title={t.settings.title}
      className="settings"
      aside={reportedAt !== null && <Freshness time={Date.parse(reportedAt)} limitMs={staleAfter('heatpump')} />}
    >
      <QueryView
        query={query}
        skeleton={
          <Blank>
            <Reported device={UNKNOWN} named={false} />
          </Blank>
        }
        isEmpty={(devices) => devices.length === 0}
        empty={t.settings.empty}
      >
        {(devices) => devices.map((device) => <Reported key={device.device_id} device={device} named={devices.length > 1} />)}
      </QueryView>
    </Card>
  );
}

function Reported({ device, named }: { readonly device: DeviceSettings; readonly named: boolean }) {
  const t = useMessages();
  const { format } = useServices();
  return (
    <div className="settings-device" data-device={device.device_id}>
      {named && <p className="pump-name">{device.device_id}</p>}
      <dl aria-label={t.settings.reported}>
        {FIELDS.map(([name, label, unit]) => {
          const wanted = device.wanted[name];
          return (
            <div key={name}>
              <dt>{label(t)}</dt>
              <dd>
                <span className="value">{shown(name, device.reported[name], unit, t, format)}</span>
                {wanted !== undefined && wanted !== null && (
                  <span className="settings-wanted">{t.settings.wanted(shown(name, wanted, unit, t, format))}</span>
                )}
              </dd>
            </div>
          );
        })}
      </dl>
    </div>
  );
}

type Field = readonly [name: keyof HeatpumpSettings, label: (t: Messages) => string, unit: string];

const FIELDS: readonly Field[] = [
  ['indoor_target_c', (t) => t.settings.indoorTarget, '°C'],
  ['mode', (t) => t.settings.mode, ''],
  ['curve', (t) => t.settings.curve, '°C'],
  ['curve_min', (t) => t.settings.curveMin, '°C'],
  ['curve_max', (t) => t.settings.curveMax, '°C'],
  ['curve_plus_5', (t) => t.settings.curvePlus5, '°C'],
  ['curve_zero', (t) => t.settings.curveZero, '°C'],
  ['curve_minus_5', (t) => t.settings.curveMinus5, '°C'],
  ['heat_stop_c', (t) => t.settings.heatStop, '°C'],
  ['integral', (t) => t.settings.integral, '°min'],
];

function shown(name: keyof HeatpumpSettings, value: number | null, unit: string, t: Messages, format: Format): string {
  if (value === null) return NOTHING;
  // A mode this page does not know is shown as its number rather than hidden.
  if (name === 'mode') return t.settings.modes[value] ?? String(value);
  return `${format.number(value)} ${unit}`;
}
