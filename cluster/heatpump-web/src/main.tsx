/** Starts the page: configuration first, then the session, then everything else. A configuration that is wrong is shown, not guessed. */
// First, so that what a feature says about a shared class comes after it.
import './styles/tokens.css';
import './styles/base.css';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { App } from './app/App';
import { preloadPage } from './app/pages';
import { Problem } from './components/Problem';
import { CALLBACK_PATH, createUserManager, Session } from './features/session/oidc';
import { Tabs } from './features/session/tabs';
import { common } from './i18n/catalogue';
import { currentLanguage } from './i18n/language';
import { loadConfig } from './lib/config/config';
import { registerWorker } from './lib/worker/worker';

const container = document.getElementById('root');
if (container === null) throw new Error('index.html has no element with id root');
const root = createRoot(container);

async function start(): Promise<void> {
  preloadPage(window.location.pathname);
  try {
    const config = await loadConfig();
    const manager = createUserManager(config);
    void manager.clearStaleState();
    const tabs = new Tabs();
    let user = await manager.getUser();
    if (user?.expired === true && user.refresh_token === undefined) {
      // A session that ended while the page was closed and cannot be renewed.
      await manager.removeUser();
      user = null;
    }
    // A new tab takes part in the session of the others; on the way back from the issuer it gets its own.
    if (user === null && window.location.pathname !== CALLBACK_PATH) {
      user = await tabs.ask();
      await manager.storeUser(user);
    }
    const session = new Session(manager, user, tabs);
    root.render(
      <StrictMode>
        <App config={config} manager={manager} session={session} />
      </StrictMode>,
    );
  } catch (error) {
    root.render(
      <main className="boot-problem">
        <Problem
          title={common[currentLanguage()].boot.title}
          detail={error instanceof Error ? error.message : ''}
          onRetry={() => {
            window.location.reload();
          }}
        />
      </main>,
    );
  }
}

void start();
registerWorker();
// A page kept for the Back button is one of before: it may have been logged out of since.
window.addEventListener('pageshow', (event) => {
  if (event.persisted) window.location.reload();
});
