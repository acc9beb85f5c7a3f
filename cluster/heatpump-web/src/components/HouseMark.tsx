/** The mark: a Swedish cottage, red with white corners, a light in the window. Decoration only. */
export function HouseMark() {
  return (
    <svg className="house-mark" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <path className="house-wall" d="M6 14 16 5l10 9v13H6z" />
      <path className="house-window" d="M12.5 16h7v7h-7z" />
      <path className="house-bar" d="M16 16v7M12.5 19.5h7" />
      <path className="house-trim" d="M6 13.2V27M26 13.2V27M3 15.5 16 5l13 10.5" />
    </svg>
  );
}
