/** Starts the page: configuration first, then the session, then everything else. A configuration that is wrong is shown, not guessed. */
// First, so that what a feature says about a shared class comes after it.
import './styles/tokens.css';
import './styles/base.css';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { App } from './app/App';
import { Problem } from './components/Problem';
import { createUserManager, Session } from './features/session/oidc';
import { en } from './i18n/en';
import { loadConfig } from './lib/config/config';

const container = document.getElementById('root');
if (container === null) throw new Error('index.html has no element with id root');
const root = createRoot(container);

async function start(): Promise<void> {
  try {
    const config = await loadConfig();
    const manager = createUserManager(config);
    void manager.clearStaleState();
    let user = await manager.getUser();
    if (user?.expired === true && user.refresh_token === undefined) {
      // A session that ended while the page was closed and cannot be renewed.
      await manager.removeUser();
      user = null;
    }
    const session = new Session(manager, user);
    root.render(
      <StrictMode>
        <App config={config} manager={manager} session={session} />
      </StrictMode>,
    );
  } catch (error) {
    root.render(
      <main className="boot-problem">
        <Problem
          title={en.boot.title}
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
