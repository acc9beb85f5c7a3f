//! The log: segments in order, written at the end by one thread, read anywhere, given up at the front.
//!
//! Nothing here decides what is acknowledged or removed; that is the writer's.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    Batch, CorruptGroup, Sequence,
    frame::{Frame, MAX_FRAME_BYTES},
    segment::{self, SEGMENT_BYTES},
};

/// What is written in the last segment when there is no other to follow it is no more than this short of its end: the
/// rest is for what must be written even then, removals, clock offsets and the agent's own events.
const RESERVED_BYTES: u64 = 512 * 1024;
const _: () = assert!(MAX_FRAME_BYTES as u64 + RESERVED_BYTES <= SEGMENT_BYTES);

/// Where each segment begins.
#[derive(Debug, Default)]
pub(super) struct Index {
    segments: VecDeque<Segment>,
}

/// One segment that holds frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub id: u64,
    /// Sequence of its first frame.
    pub first: u64,
}

/// The segments as writer and readers share them.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    dir: PathBuf,
    epoch: u32,
    index: Arc<Mutex<Index>>,
    cursor: Arc<Mutex<Option<Cursor>>>,
}

/// Where the last read ended: readers go on from there.
#[derive(Debug)]
struct Cursor {
    id: u64,
    file: File,
    offset: u64,
    next: u64,
}

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        // The index is changed in single steps: a panic elsewhere leaves it whole.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest segment and the sequence after it, unless it is the only one.
    pub(super) fn oldest(&self) -> Option<(Segment, u64)> {
        let index = self.index();
        Some((*index.segments.front()?, index.segments.get(1)?.first))
    }

    /// The segment that holds `sequence`, and where the next one begins.
    pub(super) fn find(&self, sequence: u64) -> Option<(Segment, Option<u64>)> {
        let index = self.index();
        let after = index
            .segments
            .partition_point(|segment| segment.first <= sequence);
        let at = after.saturating_sub(1);
        Some((
            *index.segments.get(at)?,
            index.segments.get(at + 1).map(|next| next.first),
        ))
    }

    pub(super) fn open(&self, id: u64) -> io::Result<File> {
        File::open(segment::path(&self.dir, id))
    }

    /// Every frame of a segment, in order.
    pub(super) fn frames(&self, id: u64) -> io::Result<impl Iterator<Item = io::Result<(u64, Frame)>>> {
        let file = self.open(id)?;
        let (epoch, mut offset) = (self.epoch, 0);
        Ok(std::iter::from_fn(move || {
            let found = segment::next_from(&file, offset, epoch, id).transpose()?;
            if let Ok((at, frame)) = &found {
                offset = at + frame.header.stride() as u64;
            }
            Some(found)
        }))
    }

    /// About `max_bytes` of entries from `from` on and before `tail`. `head` tells what was removed meanwhile.
    pub(super) fn read(
        &self,
        from: u64,
        tail: u64,
        max_bytes: usize,
        head: impl Fn() -> u64,
    ) -> io::Result<Batch> {
        let mut batch = Batch::default();
        let (mut next, mut bytes) = (from, 0);
        let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        while next < tail && bytes < max_bytes {
            let Some((found, after)) = self.find(next) else {
                break;
            };
            let end = after.unwrap_or(tail).min(tail);
            let mut here = match cursor.take().filter(|c| c.id == found.id && c.next == next) {
                Some(here) => here,
                None => match self.open(found.id) {
                    Ok(file) => Cursor {
                        id: found.id,
                        file,
                        offset: 0,
                        next,
                    },
                    // Given up since it was looked up.
                    Err(error) if error.kind() == io::ErrorKind::NotFound && next < head() => {
                        next = head();
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            let frame = segment::next_from(&here.file, here.offset, self.epoch, here.id)?;
            let frame = frame.filter(|(_, frame)| frame.header.first < end);
            let gap_end = frame.as_ref().map_or(end, |(_, frame)| frame.header.first);
            if gap_end > next {
                // The segment may have been given up, and even used again, while it was read.
                let removed = head();
                if removed > next {
                    next = removed;
                    continue;
                }
                let what = "damaged on disk";
                batch.corrupt.push(CorruptGroup {
                    first: next,
                    count: gap_end - next,
                    what,
                });
                next = gap_end;
            }
            let Some((offset, frame)) = frame else { continue };
            here.offset = offset + frame.header.stride() as u64;
            for entry in frame.entries.into_iter().filter(|entry| entry.sequence.0 >= next) {
                bytes += entry.bytes.len();
                batch.entries.push(entry);
            }
            next = next.max(frame.header.first + u64::from(frame.header.entries));
            here.next = next;
            *cursor = Some(here);
        }
        if next > from {
            batch.next = Some(Sequence(next));
        }
        Ok(batch)
    }
}

/// The writer's side of the log.
#[derive(Debug)]
pub(super) struct Log {
    shared: Shared,
    folder: File,
    active: Option<Active>,
    /// The segment to be written next, made already.
    spare: Option<(u64, File)>,
    next_id: u64,
}

#[derive(Debug)]
struct Active {
    id: u64,
    file: File,
    offset: u64,
    empty: bool,
}

/// What [`Log::open`] found.
pub(super) struct Found {
    pub log: Log,
    pub shared: Shared,
    /// The sequence after the last frame.
    pub end: Option<u64>,
}

impl Log {
    /// Opens the log in `dir`. `replay` is called with each frame of the segments from `replay_from` on.
    pub(super) fn open(
        dir: &Path,
        epoch: u32,
        replay_from: u64,
        mut replay: impl FnMut(Frame),
    ) -> io::Result<Found> {
        std::fs::create_dir_all(dir)?;
        let folder = File::open(dir)?;
        folder.sync_all()?;
        let shared = Shared {
            dir: dir.to_owned(),
            epoch,
            index: Arc::default(),
            cursor: Arc::default(),
        };
        let mut log = Log {
            shared: shared.clone(),
            folder,
            active: None,
            spare: None,
            next_id: 1,
        };
        let mut end = None;
        let mut empty = Vec::new();
        let ids = segment::list(dir)?;
        for &id in &ids {
            log.next_id = id + 1;
            let file = File::options()
                .read(true)
                .write(true)
                .open(segment::path(dir, id))?;
            match segment::next_from(&file, 0, epoch, id)? {
                Some((_, frame)) => {
                    shared.index().segments.push_back(Segment {
                        id,
                        first: frame.header.first,
                    });
                    log.active = Some(Active {
                        id,
                        file,
                        offset: 0,
                        empty: false,
                    });
                }
                None => empty.push((id, file)),
            }
        }
        let last = log.active.as_ref().map(|active| active.id);
        let segments: Vec<Segment> = shared.index().segments.iter().copied().collect();
        for segment in segments
            .iter()
            .filter(|s| s.id >= replay_from || Some(s.id) == last)
        {
            let mut offset = 0;
            for found in shared.frames(segment.id)? {
                let (at, frame) = found?;
                offset = at + frame.header.stride() as u64;
                end = end.max(Some(frame.header.end()));
                if segment.id >= replay_from {
                    replay(frame);
                }
            }
            if let Some(active) = log.active.as_mut().filter(|active| active.id == segment.id) {
                active.offset = offset;
            }
        }
        for (id, file) in empty {
            // One that was made and not used yet follows the last; any other was left over by a power cut.
            let whole = file.metadata()?.len() == SEGMENT_BYTES;
            if whole && log.spare.is_none() && Some(id) > last {
                log.spare = Some((id, file));
            } else {
                std::fs::remove_file(segment::path(dir, id))?;
            }
        }
        Ok(Found { log, shared, end })
    }

    /// Whether a frame of `len` bytes can be written now. `reserved`: it may use what is kept back.
    pub(super) fn fits(&self, len: usize, reserved: bool) -> bool {
        let kept_back = if reserved || self.spare.is_some() {
            0
        } else {
            RESERVED_BYTES
        };
        self.active
            .as_ref()
            .is_some_and(|active| active.offset + len as u64 + kept_back <= SEGMENT_BYTES)
    }

    /// The segment that is written to.
    pub(super) fn active_id(&self) -> u64 {
        self.active.as_ref().map_or(0, |active| active.id)
    }

    /// Goes on to the segment that was made ready; false when there is none.
    pub(super) fn rotate(&mut self) -> bool {
        let Some((id, file)) = self.spare.take() else {
            return false;
        };
        self.active = Some(Active {
            id,
            file,
            offset: 0,
            empty: true,
        });
        true
    }

    /// Whether the next segment is ready.
    pub(super) fn is_prepared(&self) -> bool {
        self.spare.is_some()
    }

    /// Makes the next segment.
    pub(super) fn prepare(&mut self) -> io::Result<()> {
        let id = self.next_id;
        let file = segment::create(&self.shared.dir, &self.folder, id)?;
        self.next_id += 1;
        self.spare = Some((id, file));
        Ok(())
    }

    /// Writes and syncs a frame whose first sequence is `first`. When that fails the next one is written in its place.
    pub(super) fn write(&mut self, frame: &[u8], first: u64) -> io::Result<()> {
        let active = self.active.as_mut().expect("a frame is written where it fits");
        active.file.write_all_at(frame, active.offset)?;
        active.file.sync_data()?;
        active.offset += frame.len() as u64;
        if std::mem::take(&mut active.empty) {
            let segment = Segment { id: active.id, first };
            self.shared.index().segments.push_back(segment);
        }
        Ok(())
    }

    /// Gives up the segments whose entries all come before `head` and that are older than `checkpoint`.
    pub(super) fn retire(&mut self, head: u64, checkpoint: u64) -> io::Result<()> {
        while let Some((oldest, end)) = self.shared.oldest()
            && end <= head
            && oldest.id < checkpoint
        {
            self.give_up(oldest.id)?;
        }
        Ok(())
    }

    /// Begins the only segment anew under another number: everything in it was removed and is in the checkpoint.
    pub(super) fn begin_anew(&mut self) -> io::Result<()> {
        if let Some(active) = self.active.take() {
            self.give_up(active.id)?;
        }
        Ok(())
    }

    fn give_up(&mut self, id: u64) -> io::Result<()> {
        if self.spare.is_none() {
            let new = self.next_id;
            let file = segment::recycle(&self.shared.dir, &self.folder, id, new)?;
            self.next_id += 1;
            self.spare = Some((new, file));
        } else {
            std::fs::remove_file(segment::path(&self.shared.dir, id))?;
        }
        self.shared.index().segments.retain(|segment| segment.id != id);
        Ok(())
    }

    /// Whether nothing but the segment being written is left.
    pub(super) fn is_single(&self) -> bool {
        self.shared.index().segments.len() <= 1
    }

    /// Bytes of all segments on disk.
    pub(super) fn bytes(&self) -> u64 {
        let used = self.shared.index().segments.len() as u64;
        let unused =
            u64::from(self.spare.is_some()) + u64::from(self.active.as_ref().is_some_and(|a| a.empty));
        (used + unused) * SEGMENT_BYTES
    }
}
