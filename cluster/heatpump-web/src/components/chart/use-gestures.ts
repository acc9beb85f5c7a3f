/**
 * Zooming with the hand: a mouse draws across what it wants to see closer, one finger moves, two fingers pinch, and a trackpad's pinch
 * (which browsers report as a wheel with Ctrl) zooms. One finger up or down still scrolls the page.
 */
import { type PointerEvent, type RefObject, useEffect, useRef, useState } from 'react';
import { isWhole, moved, selected, type TimeRange, zoomed } from '../../lib/chart/range';

interface Finger {
  readonly id: number;
  readonly time: number;
}

interface Options {
  readonly surface: RefObject<HTMLElement | null>;
  readonly view: TimeRange;
  readonly extent: TimeRange;
  readonly onView: (view: TimeRange) => void;
  /** The instant at a distance from the surface's left edge. */
  readonly timeAt: (x: number) => number;
}

/** Under this a movement of the mouse is a click that shook. */
const CLICK_PX = 6;

export function useGestures({ surface, view, extent, onView, timeAt }: Options) {
  const fingers = useRef<Finger[]>([]);
  const [dragged, setDragged] = useState<{ from: number; to: number; startX: number } | null>(null);
  const at = (event: { readonly clientX: number }) => event.clientX - (surface.current?.getBoundingClientRect().left ?? 0);

  useEffect(() => {
    const element = surface.current;
    if (element === null) return;
    const wheel = (event: WheelEvent) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      const x = event.clientX - element.getBoundingClientRect().left;
      onView(zoomed(view, extent, Math.exp(event.deltaY / 100), timeAt(x)));
    };
    // React's own handler is passive and could not keep the page from zooming instead.
    element.addEventListener('wheel', wheel, { passive: false });
    return () => {
      element.removeEventListener('wheel', wheel);
    };
  });

  const onPointerDown = (event: PointerEvent<HTMLElement>) => {
    const x = at(event);
    if (event.pointerType === 'mouse') {
      if (event.button !== 0) return;
      event.currentTarget.setPointerCapture(event.pointerId);
      setDragged({ from: timeAt(x), to: timeAt(x), startX: x });
      return;
    }
    fingers.current = [...fingers.current.filter(({ id }) => id !== event.pointerId), { id: event.pointerId, time: timeAt(x) }].slice(-2);
  };

  const onPointerMove = (event: PointerEvent<HTMLElement>) => {
    const x = at(event);
    if (event.pointerType === 'mouse') {
      if (dragged !== null) setDragged({ ...dragged, to: timeAt(x) });
      return;
    }
    const own = fingers.current.find(({ id }) => id === event.pointerId);
    if (own === undefined) return;
    const other = fingers.current.find(({ id }) => id !== event.pointerId);
    const time = timeAt(x);
    if (other !== undefined) {
      // The stretch between the fingers becomes as wide as they now are apart.
      const before = Math.abs(own.time - other.time);
      const now = Math.abs(time - other.time);
      if (before > 0 && now > 0) onView(zoomed(view, extent, before / now, other.time));
    } else if (!isWhole(view, extent)) {
      onView(moved(view, extent, (own.time - time) / (view.to - view.from)));
    }
  };

  const onPointerUp = (event: PointerEvent<HTMLElement>) => {
    fingers.current = fingers.current.filter(({ id }) => id !== event.pointerId);
    if (dragged === null) return;
    setDragged(null);
    if (Math.abs(at(event) - dragged.startX) < CLICK_PX) return;
    const chosen = selected(dragged.from, dragged.to, extent);
    if (chosen !== null) onView(chosen);
  };

  return {
    /** What the mouse is drawing across right now. */
    selection: dragged === null ? null : { from: Math.min(dragged.from, dragged.to), to: Math.max(dragged.from, dragged.to) },
    handlers: { onPointerDown, onPointerMove, onPointerUp, onPointerCancel: onPointerUp },
  };
}
