/** A number with its noun in the right form; English and Swedish need no more than one and many. */
export function count(number: number, one: string, many: string): string {
  return `${number} ${number === 1 ? one : many}`;
}
