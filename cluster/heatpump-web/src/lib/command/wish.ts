/**
 * Names what a person wants, so that the same wish sent again after a lost answer is not a second one. A wish is known by its text: as long
 * as the text is the same and no answer came, it keeps its name.
 */
export class Wish {
  #text = '';
  #key = '';

  /** The Idempotency-Key for this body. */
  key(body: object): string {
    const text = JSON.stringify(body);
    if (text !== this.#text || this.#key === '') {
      this.#text = text;
      this.#key = crypto.randomUUID();
    }
    return this.#key;
  }

  /** The server answered, one way or the other: the next is another wish, even in the same words. */
  answered(): void {
    this.#key = '';
  }
}
