/** The page of the heat pump: what it does, what it did, and its settings. */
import { Page } from '../../components/Page';
import { Allowed } from '../session/Allowed';
import { HeatpumpPanel } from './HeatpumpPanel';
import { HistoryPanel } from './HistoryPanel';
import { useMessages } from './messages';
import { SettingsPanel } from './SettingsPanel';

export default function HeatpumpPage() {
  const t = useMessages();
  return (
    <Page title={t.heatpump.title} className="heatpump-page">
      <Allowed scope="read:heatpump">
        <HeatpumpPanel />
        <HistoryPanel />
      </Allowed>
      <SettingsPanel />
    </Page>
  );
}
