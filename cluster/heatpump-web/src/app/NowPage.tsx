/** The first page: everything that is true at this moment, and today so far. */
import { useQuery } from '@tanstack/react-query';
import { EnergyPanel } from '../features/energy/EnergyPanel';
import { energyTodayOptions } from '../features/energy/queries';
import { HeatpumpPanel } from '../features/heatpump/HeatpumpPanel';
import { SettingsPanel } from '../features/heatpump/SettingsPanel';
import { PowerPanel } from '../features/power/PowerPanel';
import { TemperaturePanel } from '../features/temperature/TemperaturePanel';
import { useMessages } from '../i18n/messages';
import { useServices } from '../lib/services';
import { useToday } from '../lib/time/ticker';
import './now.css';

export function NowPage() {
  const t = useMessages();
  const mainIds = useMainIds();
  return (
    <div className="now">
      <h1 className="visually-hidden">{t.dashboard}</h1>
      <PowerPanel mainIds={mainIds} />
      <div className="now-column">
        <EnergyPanel />
        <TemperaturePanel />
      </div>
      <div className="now-column">
        <HeatpumpPanel />
        <SettingsPanel />
      </div>
    </div>
  );
}

/** The house's main meters: the API names them with every sum of the house. */
function useMainIds(): readonly string[] | undefined {
  const { api, config } = useServices();
  const day = useToday(config.householdTimeZone);
  const { data } = useQuery({ ...energyTodayOptions(api, day), select: (today) => today.series.devices });
  return data;
}
