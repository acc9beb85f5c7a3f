//! Segments: the files of the log.
//!
//! A segment is made whole before it is needed (its blocks are reserved, its name is synced), so that writing to it
//! needs no metadata and cannot meet a full disk. One that is no longer needed becomes the next one under a new name:
//! in a house that is drained the same few megabytes are written in place for ever. Frames name their segment, so what
//! a file holds from an earlier life counts for nothing.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::frame::{self, Frame, HEADER_BYTES, Header, PAGE_BYTES};

/// Large enough that a disk is told about a new file only now and then, small enough that one more fits a disk of a
/// few megabytes and that one of them is soon drained and used again.
pub(super) const SEGMENT_BYTES: u64 = 2 * 1024 * 1024;

const SUFFIX: &str = ".log";

pub(super) fn path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}{SUFFIX}"))
}

/// The numbers of all segments in `dir`, in order.
pub(super) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        all.extend(id.and_then(|id| u64::from_str_radix(id, 16).ok()));
    }
    all.sort_unstable();
    Ok(all)
}

/// Makes a segment with all its blocks. `folder` is the open folder.
pub(super) fn create(dir: &Path, folder: &File, id: u64) -> io::Result<File> {
    let path = path(dir, id);
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)?;
    let made = reserve(&file)
        .and_then(|()| file.sync_all())
        .and_then(|()| folder.sync_all());
    if let Err(error) = made {
        // Half a segment only takes room on a disk that has none.
        let _ = std::fs::remove_file(&path);
        return Err(error);
    }
    Ok(file)
}

/// Reserves a whole segment's blocks, on file systems that cannot by writing zeros.
fn reserve(file: &File) -> io::Result<()> {
    use rustix::{fs::FallocateFlags, io::Errno};
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, SEGMENT_BYTES) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let zeros = [0; 64 * 1024];
            for offset in (0..SEGMENT_BYTES).step_by(zeros.len()) {
                file.write_all_at(&zeros, offset)?;
            }
            Ok(())
        }
        other => Ok(other?),
    }
}

/// Makes the segment `old` the new segment `id`.
pub(super) fn recycle(dir: &Path, folder: &File, old: u64, id: u64) -> io::Result<File> {
    std::fs::rename(path(dir, old), path(dir, id))?;
    folder.sync_all()?;
    File::options().read(true).write(true).open(path(dir, id))
}

/// The frame at `offset`, if there is a whole one of this buffer and segment.
pub(super) fn read_at(file: &File, offset: u64, epoch: u32, id: u64) -> io::Result<Option<Frame>> {
    let mut bytes = vec![0; PAGE_BYTES];
    let read = read_up_to(file, &mut bytes, offset)?;
    bytes.truncate(read);
    let Some(header) = Header::decode(&bytes).filter(|h| h.epoch == epoch && h.segment == id) else {
        return Ok(None);
    };
    if header.len() > bytes.len() {
        let begun = bytes.len();
        bytes.resize(header.len(), 0);
        if read_up_to(file, &mut bytes[begun..], offset + begun as u64)? < header.len() - begun {
            return Ok(None);
        }
    }
    Ok(frame::decode(header, &bytes))
}

fn read_up_to(file: &File, mut into: &mut [u8], mut offset: u64) -> io::Result<usize> {
    let whole = into.len();
    while !into.is_empty() {
        match file.read_at(into, offset) {
            Ok(0) => break,
            Ok(n) => {
                into = &mut into[n..];
                offset += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(whole - into.len())
}

/// Whether any segment in `dir` holds a whole frame, of whatever buffer.
pub(super) fn any_frame(dir: &Path) -> io::Result<bool> {
    let segments = match list(dir) {
        Ok(segments) => segments,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    for id in segments {
        let file = File::open(path(dir, id))?;
        for page in 0..SEGMENT_BYTES / PAGE_BYTES as u64 {
            let offset = page * PAGE_BYTES as u64;
            let mut bytes = [0; HEADER_BYTES];
            let read = read_up_to(&file, &mut bytes, offset)?;
            let Some(header) = Header::decode(&bytes[..read]) else {
                continue;
            };
            if read_at(&file, offset, header.epoch, header.segment)?.is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The first whole frame at or after `offset`, with its place. What is damaged is passed over.
pub(super) fn next_from(
    file: &File,
    mut offset: u64,
    epoch: u32,
    id: u64,
) -> io::Result<Option<(u64, Frame)>> {
    while offset + HEADER_BYTES as u64 <= SEGMENT_BYTES {
        match read_at(file, offset, epoch, id) {
            Ok(Some(frame)) => return Ok(Some((offset, frame))),
            Ok(None) => {}
            // A sector that cannot be read is damage like any other; the next one may be whole.
            Err(error) if error.raw_os_error() == Some(EIO) => {}
            Err(error) => return Err(error),
        }
        offset += PAGE_BYTES as u64;
    }
    Ok(None)
}

/// What a disk answers for a sector it cannot read.
const EIO: i32 = 5;
