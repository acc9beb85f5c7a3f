/** The house's power from its meters. Pure: no clock, no page. */
import type { Measured } from '../../lib/live/tracked';
import type { Meter } from './queries';

export interface Phase {
  readonly number: 1 | 2 | 3;
  readonly watts: number | null;
  readonly volts: number | null;
  readonly amperes: number | null;
}

export interface HousePower {
  /** Bought minus sold; null when no main meter has reported its power. */
  readonly netW: number | null;
  readonly importW: number | null;
  readonly exportW: number | null;
  /** Empty when no meter reports phases. */
  readonly phases: readonly Phase[];
  /** The oldest of the values the sum is made of: a sum is as old as its oldest part. */
  readonly time: number | null;
  readonly clock: string;
}

/**
 * `mainIds` are the house's main meters as the API names them; before it has, a single meter is the main one. Several meters of which none
 * is main have no sum: adding a sub-meter to the meter it hangs on would count its power twice.
 */
export function mainMeters(meters: readonly Meter[], mainIds: readonly string[] | undefined): readonly Meter[] {
  const main = meters.filter((meter) => mainIds?.includes(meter.deviceId));
  if (main.length > 0) return main;
  return meters.length === 1 ? meters : [];
}

export function housePower(main: readonly Meter[]): HousePower {
  const powers = main.map(netPower).filter((power) => power !== null);
  const exports = main.map(exported).filter((power) => power !== null);
  const netW = sum(powers.map((power) => power.value));
  return {
    netW,
    importW: sum(powers.map((power) => Math.max(power.value, 0))),
    exportW: sum([...exports.map((power) => power.value)]),
    phases: phasesOf(main),
    time: powers.length === 0 ? null : Math.min(...powers.map((power) => power.time)),
    clock: main.some((meter) => meter.clock === 'unsynced') ? 'unsynced' : 'synced',
  };
}

/** A SaveEye reports what is sold apart; a Shelly's power is negative while selling. Both become one signed figure. */
export function netPower(meter: Meter): Measured<number> | null {
  const power = meter.fields.power_w;
  if (power === undefined) return null;
  return { value: power.value - (meter.fields.export_power_w?.value ?? 0), time: power.time };
}

function exported(meter: Meter): Measured<number> | null {
  const net = netPower(meter);
  return net === null ? null : { value: Math.max(-net.value, 0), time: net.time };
}

function phasesOf(main: readonly Meter[]): readonly Phase[] {
  const phases = ([1, 2, 3] as const).map((number): Phase => ({
    number,
    watts: sum(values(main.map((meter) => meter.fields[`power_l${number}_w`]))),
    // Meters in parallel share a voltage; the first that reports one speaks for all.
    volts: values(main.map((meter) => meter.fields[`voltage_l${number}_v`]))[0] ?? null,
    amperes: sum(values(main.map((meter) => meter.fields[`current_l${number}_a`]))),
  }));
  return phases.every((phase) => phase.watts === null) ? [] : phases;
}

function values(measured: readonly (Measured<number> | undefined)[]): number[] {
  return measured.filter((one) => one !== undefined).map((one) => one.value);
}

function sum(numbers: readonly number[]): number | null {
  return numbers.length === 0 ? null : numbers.reduce((total, number) => total + number, 0);
}
