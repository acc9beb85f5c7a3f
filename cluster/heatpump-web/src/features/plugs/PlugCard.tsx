/** One plug and everything about it. */
import { Card } from '../../components/Card';
import { Commands } from '../../components/command/Commands';
import { Freshness } from '../../components/Freshness';
import { staleAfter } from '../../lib/live/staleness';
import { PlugHistory } from './PlugHistory';
import { PlugSwitch } from './PlugSwitch';
import { useMessages } from './messages';
import type { Plug } from './queries';
import { SchedulePanel } from './SchedulePanel';

/** `place`: where it is, for one that nobody named. */
export function PlugCard({ plug, place }: { readonly plug: Plug; readonly place: string | null }) {
  const t = useMessages();
  const name = plug.name ?? place ?? plug.id;
  return (
    <Card title={name} className="plug-card" aside={plug.reportedAt !== null && <Freshness time={plug.reportedAt} limitMs={staleAfter('plug')} />}>
      {name !== plug.id && <p className="plug-id">{plug.id}</p>}
      <PlugSwitch plug={plug} name={name} />
      <Commands kind="plug" deviceId={plug.id} name={plug.id} describe={(asked) => t.plugs.asked(asked['on'] === true)} />
      <PlugHistory plugId={plug.id} />
      <SchedulePanel plugId={plug.id} />
    </Card>
  );
}
