/** The page Plugs: each with its state, its switch, what became of switching it, its history and its schedules. */
import { useQuery } from '@tanstack/react-query';
import type { Device } from '../../api/types';
import { Blank } from '../../components/Blank';
import { Page } from '../../components/Page';
import { QueryView } from '../../components/QueryView';
import { useServices } from '../../lib/services';
import { devicesOptions } from '../devices/queries';
import { Allowed } from '../session/Allowed';
import { useMessages } from './messages';
import { PlugCard } from './PlugCard';
import { PlugSwitch } from './PlugSwitch';
import { type Plug, plugsOptions } from './queries';
import './plugs.css';

/** What is drawn while nothing is known yet. */
const UNKNOWN: Plug = { id: '', name: null, on: null, reportedAt: null, wantedOn: null, powerW: null, powerAt: null };

export default function PlugsPage() {
  const t = useMessages();
  return (
    <Page title={t.plugs.title} className="plugs-page">
      <Allowed scope="read:plugs">
        <Plugs />
      </Allowed>
    </Page>
  );
}

function placesOf(devices: readonly Device[]): ReadonlyMap<string, string> {
  return new Map(devices.flatMap(({ device_id, location }) => (location === null ? [] : [[device_id, location] as const])));
}

function Plugs() {
  const t = useMessages();
  const { api } = useServices();
  const query = useQuery(plugsOptions(api));
  // The settings API knows the names that were given, the read API where a device is.
  const { data: places } = useQuery({ ...devicesOptions(api), select: placesOf });
  return (
    <QueryView
      query={query}
      skeleton={
        <Blank>
          {['first', 'second'].map((key) => (
            <div key={key} className="card plug-card">
              <PlugSwitch plug={UNKNOWN} name="" />
              <div className="plug-blank" />
            </div>
          ))}
        </Blank>
      }
      isEmpty={(plugs) => plugs.length === 0}
      empty={t.plugs.empty}
    >
      {(plugs) => (
        <div className="plug-cards">
          {plugs.map((plug) => (
            <PlugCard key={plug.id} plug={plug} place={places?.get(plug.id) ?? null} />
          ))}
        </div>
      )}
    </QueryView>
  );
}
