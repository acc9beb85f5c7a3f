/** The live connection's state as the page reads it. Written by app's live bridge only. */
import { createContext, use } from 'react';
import type { LiveState } from './connection';

export const LiveStateContext = createContext<LiveState>({ phase: 'connecting' });

export function useLiveState(): LiveState {
  return use(LiveStateContext);
}
