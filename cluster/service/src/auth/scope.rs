//! The scopes of docs/API.md, as names and as markers for [`Scoped`](super::Scoped).

/// What a caller must hold to reach a handler: at least one of these scopes.
pub trait Scope: Send + Sync + 'static {
    /// Each of them suffices.
    const ANY_OF: &'static [&'static str];
}

macro_rules! scopes {
    ($($(#[$meta:meta])* $constant:ident, $marker:ident = $name:literal;)*) => {$(
        $(#[$meta])*
        pub const $constant: &str = $name;

        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        pub struct $marker;

        impl Scope for $marker {
            const ANY_OF: &'static [&'static str] = &[$name];
        }
    )*};
}

scopes! {
    /// Energy readings and sums.
    READ_ENERGY, ReadEnergy = "read:energy";
    /// Heat-pump readings.
    READ_HEATPUMP, ReadHeatpump = "read:heatpump";
    /// Temperature readings.
    READ_TEMPERATURE, ReadTemperature = "read:temperature";
    /// Plugs, their state and their history.
    READ_PLUGS, ReadPlugs = "read:plugs";
    /// Settings of the heat pump.
    READ_SETTINGS, ReadSettings = "read:settings";
    /// Changing settings of the heat pump.
    WRITE_SETTINGS, WriteSettings = "write:settings";
    /// Switching plugs.
    WRITE_PLUGS, WritePlugs = "write:plugs";
}

/// A scope that covers one kind of reading.
#[derive(Clone, Copy, Debug)]
pub struct AnyReading;

impl Scope for AnyReading {
    const ANY_OF: &'static [&'static str] = &[READ_ENERGY, READ_HEATPUMP, READ_TEMPERATURE, READ_PLUGS];
}
