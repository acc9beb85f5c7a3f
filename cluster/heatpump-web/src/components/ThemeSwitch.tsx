/** Auto, light or dark. */
import { useId } from 'react';
import { useMessages } from '../i18n/messages';
import { setTheme, type Theme, useTheme } from '../lib/theme/theme';

const THEMES: readonly Theme[] = ['system', 'light', 'dark'];

export function ThemeSwitch() {
  const t = useMessages();
  const chosen = useTheme();
  const name = useId();
  return (
    <fieldset className="choice">
      <legend>{t.theme.label}</legend>
      <div className="choice-options">
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
      </div>
    </fieldset>
  );
}
