/** A number and its unit, the unit smaller. */
export function Value({ value, unit }: { readonly value: string; readonly unit: string }) {
  return (
    <span className="value">
      {value}
      <span className="unit"> {unit}</span>
    </span>
  );
}
