/** Auto, light or dark: three radio buttons in one line. */
import { useId } from 'react';
import { useMessages } from '../i18n/messages';
import { setTheme, type Theme, useTheme } from '../lib/theme/theme';

const THEMES: readonly Theme[] = ['system', 'light', 'dark'];

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
            checked={chosen === theme}
            onChange={() => {
              setTheme(theme);
            }}
          />
          <span>{t.theme[theme]}</span>
        </label>
      ))}
    </fieldset>
  );
}
