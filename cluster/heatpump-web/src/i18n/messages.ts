/** The texts that belong to no feature: states, ages, the frame around every page. */
import { type CommonMessages, common } from './catalogue';
import { useLanguage } from './language';

export type { CommonMessages };

export function useMessages(): CommonMessages {
  return common[useLanguage()];
}
