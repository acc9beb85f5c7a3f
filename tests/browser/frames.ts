/** Frames as the devices send them, with the values a test looks for. */

/** SaveEye `device`: `watts` bought now, `counterWh` on the counter of a meter of its own. */
export function saveEye(device: string, watts: number, counterWh: number): object {
  const third = Math.round(watts / 3);
  return {
    saveeyeDeviceSerialNumber: device,
    meterType: 'KAIFA',
    meterSerialNumber: '7359992897654321',
    timestamp: new Date().toISOString(),
    wifiRssi: -61,
    activeActualConsumption: { total: watts, L1: third, L2: third, L3: watts - 2 * third },
    activeActualProduction: { total: 0, L1: 0, L2: 0, L3: 0 },
    activeTotalConsumption: { total: counterWh },
    activeTotalProduction: { total: 0 },
    rmsVoltage: { L1: 231, L2: 230, L3: 232 },
    rmsCurrent: { L1: 4402, L2: 6431, L3: 3260 },
    powerFactor: { total: 980 },
  };
}

/** Shelly H&T Gen3 waking up with a reading. */
export function shellyHt(device: string, celsius: number, humidity: number): object {
  const seconds = Date.now() / 1000;
  return {
    src: device,
    dst: `${device}/events`,
    method: 'NotifyFullStatus',
    params: {
      ts: Math.round(seconds * 100) / 100,
      'devicepower:0': { id: 0, battery: { V: 5.37, percent: 77 }, external: { present: false } },
      'humidity:0': { id: 0, rh: humidity },
      sys: { mac: 'E4B32322A0F4', unixtime: Math.floor(seconds), uptime: 2, wakeup_reason: { boot: 'deepsleep_wake', cause: 'periodic' }, wakeup_period: 7200 },
      'temperature:0': { id: 0, tC: celsius, tF: Math.round((celsius * 1.8 + 32) * 10) / 10 },
      wifi: { sta_ip: '192.0.2.10', status: 'got ip', ssid: 'home', rssi: -58 },
    },
  };
}

/** ThermIQ `device` heating the house, `hotWater` in its tank, `wanted` indoors. */
export function thermIq(device: string, hotWater: number, wanted: number): object {
  return {
    Client_Name: device,
    app_info: 'ThermIQ-room2 2.62',
    timestamp: Math.floor(Date.now() / 1000),
    rssi: -70,
    ...{ d0: -4, d1: 21, d2: 3, d3: 21, d4: 0, d5: 38, d6: 33, d7: hotWater, d8: -1, d9: 3, d13: 0, d16: 7, d25: -182, d30: 62 },
    ...{ d50: wanted, d51: 1, d52: 38, d53: 22, d54: 55, d55: 1, d56: 0, d57: -1, d58: 17, d73: 60 },
    ...{ d104: 41231, d106: 120, d108: 8123, d114: 14, INDR_T: 21.3 },
  };
}
