/**
 * The state a plug reported and the button that wants another. The button never shows a wish as the state: until the plug reports it, the
 * state is the old one and beside it stands what is wanted.
 */
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { commandsChanged } from '../../components/command/queries';
import { ApiError } from '../../lib/api/client';
import { Wish } from '../../lib/command/wish';
import { useServices } from '../../lib/services';
import { useMay } from '../session/session-context';
import { useMessages } from './messages';
import type { Plug } from './queries';

export function PlugSwitch({ plug, name }: { readonly plug: Plug; readonly name: string }) {
  const t = useMessages();
  const { api, format } = useServices();
  const client = useQueryClient();
  const may = useMay('write:plugs');
  const [wish] = useState(() => new Wish());
  const change = useMutation({
    networkMode: 'always',
    mutationFn: async (on: boolean) => {
      const body = { on };
      try {
        await api.send('patch', '/api/v1/plugs/{plug_id}', { path: { plug_id: plug.id }, body, idempotencyKey: wish.key(body) });
      } catch (error) {
        if (error instanceof ApiError && !error.transient && error.status !== 401) wish.answered();
        throw error;
      }
      wish.answered();
    },
    onSuccess: () => commandsChanged(client, plug.id),
  });
  // Where a wish is open the button offers to take it back; otherwise the opposite of the state.
  const next = !(plug.wantedOn ?? plug.on ?? false);
  const state = plug.on === null ? 'unknown' : plug.on ? 'on' : 'off';
  const power = format.power(plug.powerW);
  return (
    <div className="plug-now" data-plug={plug.id} data-state={state}>
      <p className={`plug-state plug-${state}`}>
        <span className="plug-dot" aria-hidden="true" />
        <span className="value">{t.plugs.state[state]}</span>
      </p>
      <p className="plug-power">
        {plug.powerW === null && plug.id !== '' ? (
          t.plugs.noPower
        ) : (
          <>
            {t.plugs.power}: <span className="value">{power.value}</span> <span className="unit">{power.unit}</span>
          </>
        )}
      </p>
      {may ? (
        <button
          type="button"
          className="button plug-button"
          aria-label={t.plugs.turn(name, next)}
          aria-disabled={change.isPending}
          onClick={() => {
            if (!change.isPending) change.mutate(next);
          }}
        >
          {next ? t.plugs.turnOn : t.plugs.turnOff}
        </button>
      ) : (
        <p className="forbidden plug-wide" data-scope="write:plugs">
          {t.plugs.readOnly}
        </p>
      )}
      <p className="plug-wanted plug-wide" role="status">
        {plug.wantedOn !== null && t.plugs.wanted(plug.wantedOn)}
      </p>
      {change.error !== null && (
        <p className="plug-problem plug-wide" role="alert">
          {change.error instanceof ApiError && change.error.status === 401 ? t.plugs.ended : t.plugs.failed(change.error.message)}
        </p>
      )}
    </div>
  );
}
