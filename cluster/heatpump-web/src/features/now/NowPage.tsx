/** The first page: everything that is true at this moment, and today so far. */
import { useQuery } from '@tanstack/react-query';
import { EnergyPanel } from '../energy/EnergyPanel';
import { energyTodayOptions } from '../energy/queries';
import { HeatpumpPanel } from '../heatpump/HeatpumpPanel';
import { PowerPanel } from '../power/PowerPanel';
import { Allowed } from '../session/Allowed';
import { TemperaturePanel } from '../temperature/TemperaturePanel';
import { useMay } from '../session/session-context';
import { useMessages } from '../../i18n/messages';
import { useServices } from '../../lib/services';
import { useToday } from '../../lib/time/ticker';
import './now.css';

export default function NowPage() {
  const t = useMessages();
  // Said once for both of its places.
  const mayEnergy = useMay('read:energy');
  return (
    <div className="now">
      <title>{`${t.pages.now} · ${t.product}`}</title>
      <h1 className="visually-hidden">{t.pages.now}</h1>
      <Allowed scope="read:energy">
        <Power />
      </Allowed>
      <div className="now-column">
        {mayEnergy && <EnergyPanel />}
        <Allowed scope="read:temperature">
          <TemperaturePanel />
        </Allowed>
      </div>
      <div className="now-column">
        <Allowed scope="read:heatpump">
          <HeatpumpPanel more />
        </Allowed>
      </div>
    </div>
  );
}

function Power() {
  return <PowerPanel mainIds={useMainIds()} />;
}

/** The house's main meters: the API names them with every sum of the house. */
function useMainIds(): readonly string[] | undefined {
  const { api, config } = useServices();
  const day = useToday(config.householdTimeZone);
  const { data } = useQuery({ ...energyTodayOptions(api, day), select: (today) => today.series.devices });
  return data;
}
