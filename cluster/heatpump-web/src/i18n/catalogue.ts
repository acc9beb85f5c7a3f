/**
 * A feature's texts in every language. The English file gives the type: a translation that lacks a text or has one too many does not
 * compile. Texts with values in them are functions, so that their arguments are checked as well.
 */
import { en } from './common.en';
import { sv } from './common.sv';
import { type Language, useLanguage } from './language';

export type CommonMessages = typeof en;

export const common: Readonly<Record<Language, CommonMessages>> = { en, sv };

/** A hook that answers the feature's texts together with those every feature uses. */
export function catalogue<M extends object>(english: M, swedish: NoInfer<M>): () => CommonMessages & M {
  const texts = { en: { ...en, ...english }, sv: { ...sv, ...swedish } };
  return function useMessages() {
    return texts[useLanguage()];
  };
}
