/** Where an axis has its lines: round numbers, evenly spaced, that enclose what is drawn. */

/** At most `most` steps from `low` to `high`, each 1, 2 or 5 times a power of ten; the first tick is at or below, the last at or above. */
export function axisTicks(low: number, highest: number, most: number): readonly number[] {
  // A flat line still needs an axis.
  const high = highest > low ? highest : low + 1;
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = 10 * power;
  for (const candidate of [power, 2 * power, 5 * power]) {
    if (Math.ceil(high / candidate) - Math.floor(low / candidate) <= most) {
      step = candidate;
      break;
    }
  }
  const first = Math.floor(low / step);
  const last = Math.ceil(high / step);
  // Multiples are counted rather than added up, so that 0.1 + 0.2 stays 0.3; twelve digits drop what the division left.
  return Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toPrecision(12)));
}
