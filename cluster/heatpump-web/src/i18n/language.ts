/**
 * The page's language: chosen by the person, or what the browser asks for. Stored in this browser only; public/before-paint.js sets the
 * document's language before the first paint. Never holds a text.
 */
import { useSyncExternalStore } from 'react';

export type Language = 'en' | 'sv';
export type LanguageChoice = 'system' | Language;

/** The same name as in public/before-paint.js. */
const KEY = 'homelab.language';
/** Where the browser has no region for the language: British numbers and dates are nearer to this house's than American ones. */
const REGION: Readonly<Record<Language, string>> = { en: 'en-GB', sv: 'sv-SE' };

const listeners = new Set<() => void>();
let choice: LanguageChoice = stored();

function stored(): LanguageChoice {
  try {
    const value = localStorage.getItem(KEY);
    return value === 'en' || value === 'sv' ? value : 'system';
  } catch {
    return 'system';
  }
}

/** The first language the reader knows that the page has too; English where there is none. */
function languageOf(chosen: LanguageChoice, preferred: readonly string[]): Language {
  if (chosen !== 'system') return chosen;
  for (const tag of preferred) {
    const language = tag.slice(0, 2).toLowerCase();
    if (language === 'en' || language === 'sv') return language;
  }
  return 'en';
}

/** Numbers and dates follow the reader's own region of that language: en-US and en-IE write dates differently. */
function localeOf(language: Language, preferred: readonly string[]): string {
  return preferred.find((tag) => tag.toLowerCase().startsWith(`${language}-`)) ?? REGION[language];
}

export function currentLanguage(): Language {
  return languageOf(choice, navigator.languages);
}

export function setLanguage(chosen: LanguageChoice): void {
  choice = chosen;
  try {
    if (chosen === 'system') localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, chosen);
  } catch {
    // Storage is blocked: the choice holds until the page is left.
  }
  document.documentElement.lang = currentLanguage();
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function useLanguageChoice(): LanguageChoice {
  return useSyncExternalStore(subscribe, () => choice);
}

export function useLanguage(): Language {
  return useSyncExternalStore(subscribe, currentLanguage);
}

export function useLocale(): string {
  return useSyncExternalStore(subscribe, () => localeOf(currentLanguage(), navigator.languages));
}
