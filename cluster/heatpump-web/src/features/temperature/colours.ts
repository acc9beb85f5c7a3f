/** As many as there are colours that can be told apart in styles/tokens.css; a ninth room starts again with the first, dashed. */
export const COLOURS = 8;
