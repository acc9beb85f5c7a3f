/** The language of the page: what the browser asks for, or one of its own. Each language is named in itself. */
import { useId } from 'react';
import { type LanguageChoice, setLanguage, useLanguageChoice } from '../i18n/language';
import { useMessages } from '../i18n/messages';

const CHOICES: readonly LanguageChoice[] = ['system', 'en', 'sv'];
const NAMES = { en: 'English', sv: 'Svenska' } as const;

export function LanguageSwitch() {
  const t = useMessages();
  const chosen = useLanguageChoice();
  const name = useId();
  return (
    <fieldset className="choice">
      <legend>{t.language.label}</legend>
      <div className="choice-options">
        {CHOICES.map((choice) => (
          <label key={choice} {...(choice !== 'system' && { lang: choice })}>
            <input
              type="radio"
              name={name}
              value={choice}
              checked={chosen === choice}
              onChange={() => {
                setLanguage(choice);
              }}
            />
            <span>{choice === 'system' ? t.language.system : NAMES[choice]}</span>
          </label>
        ))}
      </div>
    </fieldset>
  );
}
