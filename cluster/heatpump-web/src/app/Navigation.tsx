/** The way between the pages: a bar at the bottom of a phone, where a thumb is, and a rail at the left of anything wider. */
import { NavLink } from 'react-router';
import { Icon } from '../components/Icon';
import { useMessages } from '../i18n/messages';
import { PAGES, preloadPage } from './pages';

export function Navigation() {
  const t = useMessages();
  return (
    <nav className="pages" aria-label={t.pages.label}>
      <ul>
        {PAGES.map(({ path, name }) => {
          const preload = () => {
            preloadPage(path);
          };
          return (
            <li key={path}>
              <NavLink to={path} end className="pages-link" onPointerEnter={preload} onFocus={preload}>
                <Icon name={name} />
                <span>{t.pages[name]}</span>
              </NavLink>
            </li>
          );
        })}
      </ul>
    </nav>
  );
}
