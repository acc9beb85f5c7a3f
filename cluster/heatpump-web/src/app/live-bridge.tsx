/**
 * Joins the live connection to the query cache: readings patch what is shown, gaps have it fetched again. The only place that knows both,
 * and the only one that opens a WebSocket.
 */
import { type QueryClient, useQueryClient } from '@tanstack/react-query';
import { type ReactNode, useEffect, useState } from 'react';
import { noticeCommands } from '../components/command/queries';
import { noticeEvents } from '../features/devices/queries';
import { patchEnergyToday } from '../features/energy/queries';
import { patchHeatpumps } from '../features/heatpump/queries';
import { patchPlugs } from '../features/plugs/queries';
import { patchMeters } from '../features/power/queries';
import type { Session } from '../features/session/oidc';
import { useSession } from '../features/session/session-context';
import { patchTemperatures } from '../features/temperature/queries';
import { LiveConnection, type LiveState, type Socket, type Surroundings } from '../lib/live/connection';
import { type LiveRecord, type Stream, STREAMS } from '../lib/live/protocol';
import { LiveStateContext } from '../lib/live/state';
import { useServices } from '../lib/services';
import { serverNow } from '../lib/time/server-clock';

const browser: Surroundings = {
  open: openWebSocket,
  now: serverNow,
  random: Math.random,
};

export function LiveBridge({ children }: { readonly children: ReactNode }) {
  const { config } = useServices();
  const session = useSession();
  const client = useQueryClient();
  const [state, setState] = useState<LiveState>({ phase: 'connecting' });
  useEffect(() => {
    const connection = new LiveConnection(
      {
        url: config.wsUrl,
        streams: grantedStreams(session),
        token: () => session.token(),
        renew: () => session.renew(),
        onRecords: (records) => {
          patch(client, records);
        },
        onMissed: (streams) => {
          for (const stream of streams) void client.invalidateQueries({ queryKey: [stream] });
        },
        onState: setState,
      },
      browser,
    );
    const wake = () => {
      if (document.visibilityState === 'visible') connection.wake();
    };
    const stopTokens = session.subscribeToken((token) => {
      connection.renewed(token);
    });
    document.addEventListener('visibilitychange', wake);
    window.addEventListener('online', wake);
    connection.start();
    return () => {
      document.removeEventListener('visibilitychange', wake);
      window.removeEventListener('online', wake);
      stopTokens();
      connection.stop();
    };
  }, [config.wsUrl, session, client]);
  return <LiveStateContext value={state}>{children}</LiveStateContext>;
}

function openWebSocket(url: string, protocols: string[]): Socket {
  const inner = new WebSocket(url, protocols);
  const socket: Socket = {
    onopen: null,
    onmessage: null,
    onclose: null,
    send: (text) => {
      inner.send(text);
    },
    close: (code) => {
      inner.close(code);
    },
  };
  inner.onopen = () => socket.onopen?.();
  inner.onmessage = (event: MessageEvent<unknown>) => socket.onmessage?.(event);
  inner.onclose = (event) => socket.onclose?.(event);
  return socket;
}

function patch(client: QueryClient, records: readonly LiveRecord[]): void {
  patchMeters(client, records);
  patchEnergyToday(client, records, serverNow());
  patchTemperatures(client, records, serverNow());
  patchHeatpumps(client, records);
  patchPlugs(client, records);
  noticeCommands(client, records);
  noticeEvents(client, records);
}

/** What the token covers. An issuer that does not name the granted scopes leaves the decision to the server. */
function grantedStreams(session: Session): readonly Stream[] {
  const scopes = session.scopes();
  const granted = STREAMS.filter((stream) => scopes.includes(stream === 'plug' ? 'read:plugs' : `read:${stream}`));
  // Events are open to whoever may see any stream.
  return granted.length === 0 ? STREAMS : [...granted, 'events'];
}
