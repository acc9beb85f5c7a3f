/** The page Devices: every device with what was last heard of it, and what was lost or came and went lately. */
import { useQuery } from '@tanstack/react-query';
import type { Device } from '../../api/types';
import { Blank } from '../../components/Blank';
import { Page } from '../../components/Page';
import { QueryView } from '../../components/QueryView';
import { ageOf } from '../../lib/format/format';
import { useServices } from '../../lib/services';
import { useNow } from '../../lib/time/ticker';
import { HOUR, MINUTE, SECOND } from '../../lib/time/zone';
import { EventList } from './EventList';
import { useMessages } from './messages';
import { devicesOptions } from './queries';
import './devices.css';

export default function DevicesPage() {
  const t = useMessages();
  const { api } = useServices();
  // The end of the running hour: what happens while the page is open is in it, and a range that moved each second would be another query
  // each second.
  const until = useNow(HOUR) + HOUR;
  const query = useQuery(devicesOptions(api));
  return (
    <Page title={t.devices.title} className="devices-page">
      <QueryView
        query={query}
        skeleton={
          <Blank>
            <div className="card device-blank" />
          </Blank>
        }
        isEmpty={(devices) => devices.length === 0}
        empty={t.devices.empty}
      >
        {(devices) => (
          <ul className="device-list" aria-label={t.devices.list}>
            {devices.map((device) => (
              <li key={`${device.kind} ${device.device_id}`} className="card device">
                <DeviceFacts device={device} />
              </li>
            ))}
          </ul>
        )}
      </QueryView>
      <EventList until={until} />
    </Page>
  );
}

function DeviceFacts({ device }: { readonly device: Device }) {
  const t = useMessages();
  const { format } = useServices();
  const now = useNow();
  const seen = Date.parse(device.last_seen);
  return (
    <>
      <h2 className="device-name">{device.location ?? device.device_id}</h2>
      <p className="device-id">
        {t.devices.kinds[device.kind] ?? device.kind}
        {device.location !== null && <> · {device.device_id}</>}
      </p>
      {device.stale_since !== null && <p className="device-stale">{t.devices.staleSince(format.moment(Date.parse(device.stale_since)))}</p>}
      <dl className="device-facts">
        <Fact name={t.devices.lastSeen}>
          <time dateTime={device.last_seen} title={format.moment(seen)}>
            {t.age(ageOf(seen, now))}
          </time>
        </Fact>
        <Fact name={t.devices.interval}>
          {device.expected_interval_seconds === null ? t.devices.unknownInterval : <Interval seconds={device.expected_interval_seconds} />}
        </Fact>
        {device.online !== null && <Fact name={t.devices.session}>{device.online ? t.devices.online : t.devices.offline}</Fact>}
        {device.battery_percent !== null && <Fact name={t.devices.battery}>{format.number(device.battery_percent, 0)} %</Fact>}
        {device.rssi_dbm !== null && <Fact name={t.devices.signal}>{format.number(device.rssi_dbm, 0)} dBm</Fact>}
        <Fact name={t.devices.agent}>{device.agent}</Fact>
      </dl>
    </>
  );
}

function Fact({ name, children }: { readonly name: string; readonly children: React.ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function Interval({ seconds }: { readonly seconds: number }) {
  const t = useMessages();
  const { format } = useServices();
  const milliseconds = seconds * SECOND;
  if (milliseconds < 2 * MINUTE) return t.devices.seconds(format.number(seconds, 0));
  if (milliseconds < 2 * HOUR) return t.devices.minutes(format.number(milliseconds / MINUTE, 0));
  return t.devices.hours(format.number(milliseconds / HOUR, 1));
}
