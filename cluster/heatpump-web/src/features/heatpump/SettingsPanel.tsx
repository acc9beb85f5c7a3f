/**
 * The settings the pump reports, what is wanted while a change is open, and the form that changes them. The three are told apart: reported
 * stands in its own column, wanted says that it is, and what is typed is neither until it was sent.
 */
import { useQuery } from '@tanstack/react-query';
import type { DeviceSettings } from '../../api/types';
import { Blank } from '../../components/Blank';
import { Card } from '../../components/Card';
import { Commands } from '../../components/command/Commands';
import { Freshness } from '../../components/Freshness';
import { QueryView } from '../../components/QueryView';
import { staleAfter } from '../../lib/live/staleness';
import { useServices } from '../../lib/services';
import { Allowed } from '../session/Allowed';
import { useMessages } from './messages';
import { heatpumpSettingsOptions, NOT_REPORTED } from './queries';
import { settingsText } from './setting-text';
import { SettingsForm } from './SettingsForm';
import './settings.css';

/** What is drawn while nothing is known yet. */
const UNKNOWN: DeviceSettings = { device_id: '', agent: null, reported: NOT_REPORTED, reported_at: null, wanted: {} };

export function SettingsPanel() {
  return (
    <Allowed scope="read:settings">
      <Settings />
    </Allowed>
  );
}

function Settings() {
  const t = useMessages();
  const { api, format } = useServices();
  const query = useQuery(heatpumpSettingsOptions(api));
  const reportedAt = query.data?.length === 1 ? (query.data[0]?.reported_at ?? null) : null;
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
            <SettingsForm device={UNKNOWN} />
          </Blank>
        }
        isEmpty={(devices) => devices.length === 0}
        empty={t.settings.empty}
      >
        {(devices) =>
          devices.map((device) => (
            <div key={device.device_id} className="settings-device" data-device={device.device_id}>
              {devices.length > 1 && (
                <p className="pump-name">
                  {device.device_id}{' '}
                  {device.reported_at !== null && <Freshness time={Date.parse(device.reported_at)} limitMs={staleAfter('heatpump')} />}
                </p>
              )}
              <SettingsForm device={device} />
              <Commands kind="heatpump" deviceId={device.device_id} describe={(asked) => settingsText(asked, t, format)} />
            </div>
          ))
        }
      </QueryView>
    </Card>
  );
}
