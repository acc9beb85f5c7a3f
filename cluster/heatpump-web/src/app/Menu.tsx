/** Theme, language and account: what is set once and seldom looked at again, behind one button. */
import { useId } from 'react';
import { useAuth } from 'react-oidc-context';
import { Icon } from '../components/Icon';
import { LanguageSwitch } from '../components/LanguageSwitch';
import { ThemeSwitch } from '../components/ThemeSwitch';
import { useMessages } from '../features/session/messages';
import { useSession } from '../features/session/session-context';

export function Menu() {
  const t = useMessages();
  const session = useSession();
  const { user } = useAuth();
  const id = useId();
  const name = user?.profile.name ?? user?.profile.preferred_username ?? user?.profile.email ?? user?.profile.sub ?? '';
  return (
    <>
      <button type="button" className="button button-quiet menu-button" popoverTarget={id} aria-label={t.menu} title={t.menu}>
        <Icon name="menu" />
      </button>
      <div id={id} className="menu" popover="auto" role="dialog" aria-label={t.menu}>
        <ThemeSwitch />
        <LanguageSwitch />
        <p className="menu-user">{t.session.user(name)}</p>
        <button type="button" className="button" onClick={() => void session.logOut()}>
          {t.session.logOut}
        </button>
      </div>
    </>
  );
}
