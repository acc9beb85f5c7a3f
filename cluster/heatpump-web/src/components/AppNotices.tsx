/** What concerns the page as a whole and stands above everything: no network, a newer version that waits. */
import { useMessages } from '../i18n/messages';
import { useOnline } from '../lib/network/online';
import { takeNewVersion, useNewVersion } from '../lib/worker/worker';

export function AppNotices() {
  const t = useMessages();
  const online = useOnline();
  const newVersion = useNewVersion();
  return (
    <>
      {!online && (
        <p className="notice app-notice" role="status">
          {t.offline}
        </p>
      )}
      {newVersion && (
        <p className="notice app-notice" role="status">
          <span>{t.newVersion.text}</span>
          <button type="button" className="button" onClick={takeNewVersion}>
            {t.newVersion.take}
          </button>
        </p>
      )}
    </>
  );
}
