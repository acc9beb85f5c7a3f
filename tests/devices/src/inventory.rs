//! Names of the devices in a house: chosen by its seed, in the form the vendors use.

use crate::House;

/// The devices of a house.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// Shelly H&T Gen3, one a room.
    pub rooms: Vec<Room>,
    /// SaveEye serial number: the meter's device id when the house has a SaveEye.
    pub saveeye: String,
    /// Serial number of the grid company's meter behind it.
    pub meter_serial: String,
    /// Shelly Pro 3EM: the meter's device id when the house has one.
    pub pro3em: String,
    /// ThermIQ client name.
    pub pump: String,
    /// Tasmota plug with the television.
    pub tasmota: String,
    /// Shelly plug with the fridge.
    pub shelly_plug: String,
}

/// A room with a sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Device id of the sensor.
    pub device_id: String,
    /// Name of the room, for the agent's configuration of locations.
    pub location: &'static str,
    /// Number of the room in [`House::room`].
    pub number: u64,
}

impl Inventory {
    /// The devices of `house`.
    pub fn of(house: &House) -> Self {
        let mac = |tag: u64| format!("{:012x}", house.hash(tag, 0) & 0xffff_ffff_ffff);
        let digits = |tag: u64, count: u32| house.hash(tag, 0) % 10_u64.pow(count);
        let rooms = ["bedroom", "living room", "bathroom", "hall"];
        Self {
            rooms: (1..)
                .zip(rooms)
                .map(|(number, location)| Room {
                    device_id: format!("shellyhtg3-{}", mac(100 + number)),
                    location,
                    number,
                })
                .collect(),
            saveeye: format!("SE{:07}", digits(120, 7)),
            meter_serial: format!("735999{:010}", digits(121, 10)),
            pro3em: format!("shellypro3em-{}", mac(122)),
            pump: format!("ivt-{:03}", digits(123, 3)),
            tasmota: format!("tasmota_{:06X}", house.hash(124, 0) & 0xff_ffff),
            shelly_plug: format!("shellyplugsg3-{}", mac(125)),
        }
    }

    /// Every device id with its location, for the agent's configuration. Both possible meters are named.
    pub fn locations(&self) -> Vec<(String, &'static str)> {
        let rooms = self
            .rooms
            .iter()
            .map(|room| (room.device_id.clone(), room.location));
        let others = [
            (&self.saveeye, "meter cabinet"),
            (&self.pro3em, "meter cabinet"),
            (&self.pump, "boiler room"),
            (&self.tasmota, "living room"),
            (&self.shelly_plug, "kitchen"),
        ];
        rooms
            .chain(others.map(|(id, location)| (id.clone(), location)))
            .collect()
    }
}
