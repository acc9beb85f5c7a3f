//! Small durable values in a wrapper that names them, so that they can be found in a file sled cannot open.
//!
//! ```text
//! magic 4 bytes | epoch u32 | name length u16 | value length u16 | crc32 of all but itself u32 | name | value
//! ```

use bytes::Buf;

/// Begins every wrapper; the digit is the version of the form.
pub(super) const MAGIC: [u8; 4] = *b"HKV1";
pub(super) const HEADER_BYTES: usize = 4 + 4 + 2 + 2 + 4;
/// Longest name and value together; what is kept this way has some hundred bytes.
pub(super) const MAX_BYTES: usize = 4 * 1024;

/// A value found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named<'a> {
    pub epoch: u32,
    pub name: &'a [u8],
    pub value: &'a [u8],
}

/// Whether a value is short enough for a wrapper.
pub(super) fn fits(name: &[u8], value: &[u8]) -> bool {
    HEADER_BYTES + name.len() + value.len() <= MAX_BYTES
}

pub(super) fn wrap(epoch: u32, name: &[u8], value: &[u8]) -> Vec<u8> {
    debug_assert!(fits(name, value));
    let len = |bytes: &[u8]| u16::try_from(bytes.len()).expect("names and values are far below 64 KiB");
    let mut out = Vec::with_capacity(HEADER_BYTES + name.len() + value.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&epoch.to_be_bytes());
    out.extend_from_slice(&len(name).to_be_bytes());
    out.extend_from_slice(&len(value).to_be_bytes());
    let crc = checksum(&out, name, value);
    out.extend_from_slice(&crc.to_be_bytes());
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out
}

/// The wrapper at the beginning of `bytes`, with its length.
pub(super) fn find(bytes: &[u8]) -> Option<(Named<'_>, usize)> {
    let header = bytes
        .get(..HEADER_BYTES)
        .filter(|header| header.starts_with(&MAGIC))?;
    let mut fields = &header[MAGIC.len()..];
    let epoch = fields.get_u32();
    let (name_len, value_len) = (usize::from(fields.get_u16()), usize::from(fields.get_u16()));
    let crc = fields.get_u32();
    let end = HEADER_BYTES + name_len + value_len;
    let (name, value) = bytes.get(HEADER_BYTES..end)?.split_at(name_len);
    (crc == checksum(&header[..HEADER_BYTES - 4], name, value)).then_some((Named { epoch, name, value }, end))
}

/// The value inside a wrapper; values that ride with appends have none.
pub(super) fn unwrap(stored: &[u8]) -> &[u8] {
    match find(stored) {
        Some((named, len)) if len == stored.len() => named.value,
        _ => stored,
    }
}

fn checksum(header: &[u8], name: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(name);
    hasher.update(value);
    hasher.finalize()
}
