/** Auto, light or dark: three radio buttons in one line, each a picture with a name. */
import { useId } from 'react';
import { useMessages } from '../i18n/messages';
import { setTheme, type Theme, useTheme } from '../lib/theme/theme';

const THEMES: readonly Theme[] = ['system', 'light', 'dark'];

/** Half and half, a sun, a moon. */
const ICONS: Readonly<Record<Theme, string>> = {
  system: 'M10 3a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM10 3v14M7 4v12M5 6v8',
  light: 'M10 6.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7zM10 1.5v2M10 16.5v2M1.5 10h2M16.5 10h2M4 4l1.4 1.4M14.6 14.6 16 16M4 16l1.4-1.4M14.6 5.4 16 4',
  dark: 'M16.5 12.3A7 7 0 0 1 7.7 3.5a7 7 0 1 0 8.8 8.8z',
};

export function ThemeSwitch() {
  const t = useMessages();
  const chosen = useTheme();
  const name = useId();
  return (
    <fieldset className="theme-switch">
      <legend className="visually-hidden">{t.theme.label}</legend>
      {THEMES.map((theme) => (
        <label key={theme}>
          <input
            type="radio"
            name={name}
            value={theme}
            aria-label={t.theme[theme]}
            checked={chosen === theme}
            onChange={() => {
              setTheme(theme);
            }}
          />
          <span className="theme-icon" title={t.theme[theme]}>
            <svg viewBox="0 0 20 20" aria-hidden="true" focusable="false">
              <path d={ICONS[theme]} />
            </svg>
          </span>
        </label>
      ))}
    </fieldset>
  );
}
