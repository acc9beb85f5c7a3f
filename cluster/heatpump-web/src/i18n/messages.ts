/** The catalogue in use. One language for now; another is a file of type Messages and a choice here. */
import { createContext, use } from 'react';
import { en, type Messages } from './en';

export const MessagesContext = createContext<Messages>(en);

export function useMessages(): Messages {
  return use(MessagesContext);
}
