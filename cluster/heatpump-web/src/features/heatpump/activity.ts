/** What the pump is doing, in one word, from its single states. Pure. */
import type { Pump } from './queries';

export type Activity = 'hotWater' | 'heating' | 'auxiliary' | 'circulating' | 'resting' | 'unknown';

export function activityOf(pump: Pump): Activity {
  const { compressor_on, hot_water_on, aux_3kw_on, aux_6kw_on, flow_pump_on } = pump.fields;
  if (compressor_on === undefined) return 'unknown';
  const auxiliary = (aux_3kw_on?.value ?? false) || (aux_6kw_on?.value ?? false);
  if ((hot_water_on?.value ?? false) && (compressor_on.value || auxiliary)) return 'hotWater';
  if (compressor_on.value) return 'heating';
  if (auxiliary) return 'auxiliary';
  return flow_pump_on?.value === true ? 'circulating' : 'resting';
}
