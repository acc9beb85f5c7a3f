//! What of the buffer is fuzzed: whatever stands in a damaged file, with wrong checksums and, as an attacker with a disk
//! editor could, with right ones.

use super::{frame, group, named, salvage};

/// Bytes as they may stand in a file of the buffer.
pub fn frames(bytes: &[u8]) {
    salvage::look_at(bytes);
    for magic in [frame::MAGIC, group::MAGIC, named::MAGIC] {
        let mut forged = bytes.to_vec();
        if forged.len() < magic.len() {
            return;
        }
        forged[..magic.len()].copy_from_slice(&magic);
        match magic {
            frame::MAGIC => seal(&mut forged, frame::HEADER_BYTES),
            group::MAGIC => seal(&mut forged, group::HEADER_BYTES),
            _ => {
                let header = named::HEADER_BYTES;
                if forged.len() >= header {
                    let rest = forged.len() - header;
                    let name = rest.min(usize::from(forged[8]));
                    let lengths = [name, (rest - name).min(named::MAX_BYTES)].map(|n| n as u16);
                    forged[8..10].copy_from_slice(&lengths[0].to_be_bytes());
                    forged[10..12].copy_from_slice(&lengths[1].to_be_bytes());
                    let end = header + lengths.iter().map(|n| usize::from(*n)).sum::<usize>();
                    let sum = checksum(&forged[..header - 4], &forged[header..end]);
                    forged[header - 4..header].copy_from_slice(&sum);
                }
            }
        }
        salvage::look_at(&forged);
    }
}

/// Makes length and checksum right, which stand at the end of the header in that order.
fn seal(bytes: &mut [u8], header: usize) {
    if bytes.len() < header {
        return;
    }
    let packed = (bytes.len() - header) as u32;
    bytes[header - 8..header - 4].copy_from_slice(&packed.to_be_bytes());
    let sum = checksum(&bytes[..header - 4], &bytes[header..]);
    bytes[header - 4..header].copy_from_slice(&sum);
}

fn checksum(header: &[u8], rest: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(rest);
    hasher.finalize().to_be_bytes()
}
