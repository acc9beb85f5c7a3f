/** What a sensor is called: its room, or its own id until somebody says where it hangs. */
import type { Sensor } from './queries';

export function roomName(sensor: Sensor, all: readonly Sensor[]): string {
  const { location, deviceId } = sensor;
  if (location === null) return deviceId;
  const name = location.charAt(0).toLocaleUpperCase() + location.slice(1).replaceAll('_', ' ');
  const alone = all.filter((other) => other.location === location).length === 1;
  // Two sensors in one room are told apart by the end of their ids.
  return alone ? name : `${name} (${deviceId.slice(-4)})`;
}
