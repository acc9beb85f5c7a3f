//! Frames from the socket: whole packets, or what is kept of a PUBLISH that is too large.

use bytes::{Buf, BufMut, BytesMut};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use super::{
    CapturedPayload,
    connection::End,
    net::Stream,
    wire::{self, DisconnectReason, FixedHeader, Incoming, Publish, Version},
};

/// Largest payload that is captured and routed.
pub const CAPTURE_BYTES: usize = 256 * 1024;
/// Largest payload that is read at all, and discarded; beyond it the connection ends.
const DISCARD_BYTES: usize = 16 * 1024 * 1024;
/// What a PUBLISH may have besides its payload: a topic and properties.
const HEAD_BYTES: usize = 128 * 1024;
/// Largest packet, told to version 5 clients.
pub const PACKET_BYTES: usize = DISCARD_BYTES + HEAD_BYTES;
/// Largest packet that is kept in memory.
const KEPT_BYTES: usize = CAPTURE_BYTES + HEAD_BYTES;
/// Largest first packet: a will of 64 KiB, and names.
const CONNECT_BYTES: usize = 96 * 1024;
/// What is kept of a payload that is too large.
const KEPT_HEAD_BYTES: usize = 4 * 1024;
/// Room for one read: a device's frame is a few hundred bytes, and a thousand connections share 1 GB.
const READ_BYTES: usize = 4 * 1024;

/// A whole packet, or what is left of a PUBLISH that was too large.
pub enum Frame {
    /// A packet.
    Packet(BytesMut),
    /// A PUBLISH whose payload was thrown away.
    Oversize(Box<Oversize>),
}

/// A PUBLISH whose payload is read and thrown away.
pub struct Oversize {
    /// The message without its payload.
    pub publish: Publish,
    head: BytesMut,
    length: u64,
    hash: Sha256,
    left: usize,
}

/// Takes frames from the socket. Every await may be cancelled between frames without losing a byte.
pub struct Reader {
    /// The socket, which is written to elsewhere.
    pub stream: Stream,
    frames: Frames,
}

/// Makes frames of bytes as they come.
#[derive(Default)]
pub struct Frames {
    /// What came and is not taken yet.
    pub buffer: BytesMut,
    oversize: Option<Box<Oversize>>,
}

impl Reader {
    /// Begins to read.
    pub fn new(stream: Stream) -> Self {
        let buffer = BytesMut::with_capacity(READ_BYTES);
        let frames = Frames {
            buffer,
            oversize: None,
        };
        Self { stream, frames }
    }

    /// The next frame. `version` is `None` before CONNECT, when only small packets are taken.
    pub async fn next(&mut self, version: Option<Version>) -> Result<Frame, End> {
        loop {
            if let Some(frame) = self.buffered(version)? {
                return Ok(frame);
            }
            let buffer = &mut self.frames.buffer;
            if buffer.capacity() - buffer.len() < READ_BYTES {
                buffer.reserve(READ_BYTES);
            }
            if self.stream.read_buf(buffer).await? == 0 {
                return Err(End::Lost(std::io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// The next frame as far as it is here already.
    pub fn buffered(&mut self, version: Option<Version>) -> Result<Option<Frame>, End> {
        self.frames.next(version)
    }
}

impl Frames {
    /// The next frame, if all of it is here.
    pub fn next(&mut self, version: Option<Version>) -> Result<Option<Frame>, End> {
        if let Some(oversize) = &mut self.oversize {
            let take = oversize.left.min(self.buffer.len());
            oversize.swallow(&self.buffer[..take]);
            self.buffer.advance(take);
            return Ok(if oversize.left == 0 {
                self.oversize.take().map(Frame::Oversize)
            } else {
                None
            });
        }
        let Some(header) = FixedHeader::peek(&self.buffer)? else {
            return Ok(None);
        };
        // At once, not when the whole packet is here.
        header.check()?;
        let Some(version) = version else {
            if header.remaining_len > CONNECT_BYTES {
                return Err(too_large(header));
            }
            return Ok(self.whole(header).map(Frame::Packet));
        };
        if header.remaining_len > KEPT_BYTES {
            return self.begin_oversize(version, header);
        }
        let Some(frame) = self.whole(header) else {
            return Ok(None);
        };
        if header.packet_type() == FixedHeader::PUBLISH
            && let Some(start) = payload_start(version, &frame, header)
            && frame.len() - start > CAPTURE_BYTES
        {
            let mut oversize = Oversize::begin(version, &frame[..start], header)?;
            oversize.swallow(&frame[start..]);
            return Ok(Some(Frame::Oversize(Box::new(oversize))));
        }
        Ok(Some(Frame::Packet(frame)))
    }

    /// Takes a whole frame, if it is here.
    fn whole(&mut self, header: FixedHeader) -> Option<BytesMut> {
        if self.buffer.len() < header.frame_len() {
            return None;
        }
        let frame = self.buffer.split_to(header.frame_len());
        if frame.len() > READ_BYTES {
            // Room for a large packet is not kept for the small ones that follow.
            let mut small = BytesMut::with_capacity(READ_BYTES);
            small.extend_from_slice(&self.buffer);
            self.buffer = small;
        }
        Some(frame)
    }

    fn begin_oversize(&mut self, version: Version, header: FixedHeader) -> Result<Option<Frame>, End> {
        if header.packet_type() != FixedHeader::PUBLISH || header.frame_len() > PACKET_BYTES {
            return Err(too_large(header));
        }
        let Some(start) = payload_start(version, &self.buffer, header) else {
            // Topic and properties of a sound PUBLISH have come long before this much is buffered.
            return if self.buffer.len() > HEAD_BYTES {
                Err(too_large(header))
            } else {
                Ok(None)
            };
        };
        if header.frame_len() - start > DISCARD_BYTES {
            return Err(too_large(header));
        }
        let head = self.buffer.split_to(start);
        self.oversize = Some(Box::new(Oversize::begin(version, &head, header)?));
        self.next(Some(version))
    }
}

fn too_large(header: FixedHeader) -> End {
    let why = format!("a packet of {} bytes", header.frame_len());
    End::Ours(DisconnectReason::PacketTooLarge, why)
}

impl Oversize {
    /// `head` is the frame up to its payload. Everything but the payload is checked as in any other PUBLISH.
    fn begin(version: Version, head: &[u8], header: FixedHeader) -> Result<Self, End> {
        let body = &head[header.header_len..];
        let mut frame = BytesMut::with_capacity(5 + body.len());
        frame.put_u8(header.byte1);
        wire::put_variable(body.len(), &mut frame);
        frame.put_slice(body);
        let Incoming::Publish(publish) = wire::decode(version, frame)? else {
            return Err(wire::Malformed::Form("a large packet is not a PUBLISH").into());
        };
        let left = header.frame_len() - head.len();
        Ok(Self {
            publish,
            head: BytesMut::new(),
            length: left as u64,
            hash: Sha256::new(),
            left,
        })
    }

    fn swallow(&mut self, bytes: &[u8]) {
        let keep = KEPT_HEAD_BYTES.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..keep]);
        self.hash.update(bytes);
        self.left -= bytes.len();
    }

    /// The message, and what is kept of its payload.
    pub fn finish(self) -> (Publish, CapturedPayload) {
        let kept = CapturedPayload::Truncated {
            head: self.head.freeze(),
            length: self.length,
            sha256: self.hash.finalize().into(),
        };
        (self.publish, kept)
    }
}

/// Where the payload of a PUBLISH begins in its frame; `None` while that is not here yet, or never comes.
fn payload_start(version: Version, frame: &[u8], header: FixedHeader) -> Option<usize> {
    let mut at = header.header_len;
    let topic_len = frame.get(at..at + 2)?;
    at += 2 + usize::from(u16::from_be_bytes([topic_len[0], topic_len[1]]));
    if header.byte1 & 0b0110 != 0 {
        at += 2;
    }
    if version == Version::V5 {
        let mut properties_len = 0;
        for n in 0.. {
            let byte = *frame.get(at)?;
            properties_len |= usize::from(byte & 0x7f) << (7 * n);
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
            if n == 3 {
                return None;
            }
        }
        at += properties_len;
    }
    (at <= frame.len() && at <= header.frame_len()).then_some(at)
}
