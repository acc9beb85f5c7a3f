/**
 * The latest commands of a device, each with its story. The caller says in words what a command asked for; this says what became of it, and
 * tells assistive technology when that changes.
 */
import { useInfiniteQuery, useQuery } from '@tanstack/react-query';
import { useEffect, useRef, useState } from 'react';
import type { Command } from '../../api/types';
import { isOpen, reasonOf, storyOf, type StoryStep } from '../../lib/command/story';
import { useServices } from '../../lib/services';
import { Blank } from '../Blank';
import { QueryView } from '../QueryView';
import { useMessages } from './messages';
import { type CommandKind, commandOptions, outboxOptions } from './queries';
import './command.css';

interface CommandsProps {
  readonly kind: CommandKind;
  readonly deviceId: string;
  /** Of the device, where a page has several. */
  readonly name?: string;
  /** What was asked for, for a person: "Wanted indoors 22 °C". */
  readonly describe: (asked: Command['asked']) => string;
}

export function Commands({ kind, deviceId, name, describe }: CommandsProps) {
  const t = useMessages();
  const { api } = useServices();
  const query = useInfiniteQuery(outboxOptions(api, kind, deviceId));
  const commands = query.data?.pages.flatMap((page) => page.items);
  return (
    <section className="commands" aria-label={name === undefined ? t.command.recent : `${t.command.recent}: ${name}`}>
      <h3>{t.command.recent}</h3>
      <Announcement commands={commands} describe={describe} />
      <QueryView query={query} skeleton={<Waiting />} isEmpty={(data) => data.pages[0]?.items.length === 0} empty={t.command.none}>
        {() => (
          <>
            <ol className="command-list">
              {commands?.map((command) => <Entry key={command.id} kind={kind} command={command} what={describe(command.asked)} />)}
            </ol>
            {query.hasNextPage && (
              <button type="button" className="button button-quiet" disabled={query.isFetchingNextPage} onClick={() => void query.fetchNextPage()}>
                {t.command.older}
              </button>
            )}
          </>
        )}
      </QueryView>
    </section>
  );
}

function Waiting() {
  return (
    <Blank>
      <p className="command-what">
        <span className="value">00</span>
      </p>
    </Blank>
  );
}

/** Says the state of the newest command when it changes while the page is open, and nothing when the page is opened. */
function Announcement({ commands, describe }: { readonly commands: readonly Command[] | undefined; readonly describe: CommandsProps['describe'] }) {
  const t = useMessages();
  const newest = commands?.[0];
  const known = useRef<string | null>(null);
  const [said, setSaid] = useState('');
  const state = newest === undefined ? '' : `${newest.id} ${newest.status}`;
  const text = newest === undefined ? '' : t.command.announce(describe(newest.asked), t.command.status[newest.status] ?? newest.status);
  useEffect(() => {
    if (commands === undefined) return;
    if (known.current !== null && known.current !== state) setSaid(text);
    known.current = state;
  }, [commands, state, text]);
  return (
    <p className="visually-hidden" role="status">
      {said}
    </p>
  );
}

function Entry({ kind, command, what }: { readonly kind: CommandKind; readonly command: Command; readonly what: string }) {
  const t = useMessages();
  const { format } = useServices();
  const open = isOpen(command);
  const { status, reason } = command;
  const known = reason === null || reason === undefined ? null : reasonOf(reason);
  return (
    <li className={`command command-${status}`} data-command={command.id} data-status={status}>
      <p className="command-head">
        <span className="command-what">{what}</span>
        <span className="command-status">{t.command.status[status] ?? status}</span>
      </p>
      <ol className="command-steps">
        {storyOf(command).map((step) => (
          <StepItem key={step.step} step={step} attempts={command.attempts} />
        ))}
      </ol>
      {reason !== null && reason !== undefined && <p className="command-reason">{known === null ? reason : t.command.reasons[known]}</p>}
      {open && <p className="command-note">{t.command.until(format.clock(Date.parse(command.expires_at)))}</p>}
      <History kind={kind} command={command} />
    </li>
  );
}

function StepItem({ step: { step, state, at }, attempts }: { readonly step: StoryStep; readonly attempts: number }) {
  const t = useMessages();
  const { format } = useServices();
  return (
    <li className={`step step-${step} step-${state}`} {...(state === 'now' && { 'aria-current': 'step' as const })}>
      <span className="step-name">{t.command.steps[step]}</span>{' '}
      <span className="step-when">
        {at === null ? state === 'ahead' && t.command.ahead : <time dateTime={new Date(at).toISOString()}>{format.moment(at)}</time>}
        {step === 'sent' && attempts > 1 && ` (${t.command.attempt(attempts)})`}
      </span>
    </li>
  );
}

/** Every state with its time, fetched for whoever wants to know. */
function History({ kind, command }: { readonly kind: CommandKind; readonly command: Command }) {
  const t = useMessages();
  const [open, setOpen] = useState(false);
  return (
    <details
      className="command-history"
      onToggle={(event) => {
        setOpen(event.currentTarget.open);
      }}
    >
      <summary>{t.command.everyState}</summary>
      {open && <Changes kind={kind} command={command} />}
    </details>
  );
}

function Changes({ kind, command }: { readonly kind: CommandKind; readonly command: Command }) {
  const t = useMessages();
  const { api, format } = useServices();
  const query = useQuery(commandOptions(api, kind, command));
  const schedule = command.requested_by.startsWith('schedule:');
  return (
    <QueryView query={query} skeleton={<Waiting />} isEmpty={() => false} empty="">
      {(changes) => (
        <>
          <p className="command-note">{schedule ? t.command.bySchedule : t.command.by(command.requested_by)}</p>
          <ol className="command-changes">
            {changes.map((change) => (
              <li key={`${change.at} ${change.status}`}>
                <time dateTime={change.at}>{format.moment(Date.parse(change.at))}</time> {t.command.status[change.status] ?? change.status}
                {change.attempts > 0 && `, ${t.command.attempt(change.attempts)}`}
              </li>
            ))}
          </ol>
        </>
      )}
    </QueryView>
  );
}
