//! The fixed header every packet begins with.

use super::Malformed;

/// The fixed header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedHeader {
    /// Type and flags.
    pub byte1: u8,
    /// Bytes of the fixed header itself.
    pub header_len: usize,
    /// Bytes behind it.
    pub remaining_len: usize,
}

impl FixedHeader {
    /// Packet type of PUBLISH.
    pub const PUBLISH: u8 = 3;

    /// Reads the header at the beginning of `bytes`; `None` when more bytes are needed.
    pub fn peek(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some((&byte1, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        let mut remaining_len = 0;
        for (n, &byte) in rest.iter().take(4).enumerate() {
            remaining_len |= usize::from(byte & 0x7f) << (7 * n);
            if byte & 0x80 == 0 {
                return Ok(Some(Self {
                    byte1,
                    header_len: n + 2,
                    remaining_len,
                }));
            }
        }
        if rest.len() >= 4 {
            Err(Malformed::Form("remaining length has more than four bytes"))
        } else {
            Ok(None)
        }
    }

    /// The packet type.
    pub const fn packet_type(self) -> u8 {
        self.byte1 >> 4
    }

    /// Length of the whole frame.
    pub const fn frame_len(self) -> usize {
        self.header_len + self.remaining_len
    }

    /// Flags as MQTT 2.2.2 wants them, and only packets a client may send.
    pub const fn check(self) -> Result<(), Malformed> {
        let flags = self.byte1 & 0x0f;
        match (self.packet_type(), flags) {
            (3, flags) if flags & 0b0110 == 0b0110 => Err(Malformed::Form("QoS 3")),
            (3, flags) if flags & 0b1110 == 0b1000 => Err(Malformed::Rule("DUP at QoS 0")),
            (3, _) | (6 | 8 | 10, 0b0010) | (1 | 4 | 5 | 7 | 12 | 14, 0) => Ok(()),
            (1 | 4..=8 | 10 | 12 | 14, _) => Err(Malformed::Form("flags of the fixed header are wrong")),
            (0, _) => Err(Malformed::Form("packet type 0")),
            _ => Err(Malformed::Rule("packet type is not for clients to send")),
        }
    }
}
