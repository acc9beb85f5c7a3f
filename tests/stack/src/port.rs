//! Free ports on 127.0.0.1.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};

/// Below the range the kernel hands to outgoing connections, so that a port found free is not taken by a client of ours
/// before its server binds it, nor while a part is being restarted.
const RANGE: std::ops::Range<u16> = 20_000..32_000;
const ATTEMPTS: u32 = 1_000;

/// A port nobody listens on, never given twice in one process.
///
/// # Errors
/// When none is found.
pub fn free() -> Result<SocketAddr> {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_default();
    for _ in 0..ATTEMPTS {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, rand::random_range(RANGE)));
        if !given.contains(&address.port()) && TcpListener::bind(address).is_ok() {
            given.insert(address.port());
            return Ok(address);
        }
    }
    bail!("no free port between {} and {}", RANGE.start, RANGE.end)
}

/// The port asked for when it is free, otherwise, or when none is asked for, any free one.
///
/// # Errors
/// When none is found.
pub fn prefer(port: Option<u16>) -> Result<SocketAddr> {
    let wanted = port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    match wanted {
        Some(address) if TcpListener::bind(address).is_ok() => Ok(address),
        _ => free(),
    }
}
