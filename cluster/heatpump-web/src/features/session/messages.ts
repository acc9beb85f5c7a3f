/** The texts of this feature. */
import { catalogue } from '../../i18n/catalogue';
import { en } from './messages.en';
import { sv } from './messages.sv';

export const useMessages = catalogue(en, sv);

export type Messages = ReturnType<typeof useMessages>;
