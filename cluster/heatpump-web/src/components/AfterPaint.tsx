/**
 * Renders its children only after the first paint, so that what they load (the chart library) does not compete with what is needed to show
 * the first figures. Shows the fallback until then and while they load.
 */
import { type ReactNode, Suspense, useEffect, useState } from 'react';

export function AfterPaint({ fallback, children }: { readonly fallback: ReactNode; readonly children: ReactNode }) {
  const [painted, setPainted] = useState(false);
  useEffect(() => {
    // The first frame callback comes before the paint, a timer set in it after.
    let timer: ReturnType<typeof setTimeout> | undefined;
    const frame = requestAnimationFrame(() => {
      timer = setTimeout(() => {
        setPainted(true);
      });
    });
    return () => {
      cancelAnimationFrame(frame);
      clearTimeout(timer);
    };
  }, []);
  return painted ? <Suspense fallback={fallback}>{children}</Suspense> : fallback;
}
