//! What the agent wrote and synced, as strace saw it, and the disk as a power cut could have left it.
//!
//! The model of the disk, harsher than most disks are:
//!
//! - A write is safe when a sync of its file began after the write had returned, and has returned itself.
//! - Of everything else each sector of 512 bytes holds any one of the states it went through since, whatever its
//!   neighbours hold: lost, torn and reordered writes in one. `sync_file_range` protects nothing, as its page says.
//! - A file's length, its name and a rename are safe with the next sync of the file or of its folder; before, each may be
//!   as it was.
//!
//! Times are those of strace's own stamps, the clock the clients read as well.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use rand::{Rng, RngExt};

/// What strace must be asked for.
pub const CALLS: &str = "openat,close,dup,pwrite64,write,fdatasync,fsync,ftruncate,fallocate,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat";
const SECTOR: usize = 512;

/// The words before the agent's own.
pub fn wrapper(output: &Path) -> Vec<String> {
    let most = (64 << 20).to_string();
    let trace = format!("trace={CALLS}");
    let output = output.display().to_string();
    [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-xx",
        "-s",
        &most,
        "-ttt",
        "-T",
        "-e",
        &trace,
        "-e",
        "signal=none",
        "-o",
        &output,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// One call that changed or synced a file.
#[derive(Debug)]
struct Event {
    begin_us: u64,
    end_us: u64,
    call: Call,
}

#[derive(Debug)]
enum Call {
    /// A new file; its place in `Recording::files` is the number.
    Create,
    Write {
        file: usize,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        file: usize,
        length: usize,
    },
    /// Blocks up to a length: a file that is shorter grows to it, with zeros.
    Reserve {
        file: usize,
        length: usize,
    },
    Sync {
        file: usize,
    },
    SyncFolder {
        folder: PathBuf,
    },
    Name {
        file: usize,
        path: PathBuf,
    },
    Folder {
        path: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
}

/// Everything that happened below one folder.
#[derive(Debug, Default)]
pub struct Recording {
    events: Vec<Event>,
    files: usize,
}

struct Descriptor {
    file: Option<usize>,
    folder: PathBuf,
    position: usize,
}

impl Recording {
    /// Reads strace's output; what is not below `root` is left out.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(output: &Path, root: &Path) -> Result<Recording> {
        let file = std::fs::File::open(output).with_context(|| format!("opening {}", output.display()))?;
        let mut reader = Reader {
            root,
            names: HashMap::new(),
            open: HashMap::new(),
            recording: Recording::default(),
        };
        let mut begun: HashMap<String, (u64, String)> = HashMap::new();
        for line in BufReader::new(file).lines() {
            let line = line?;
            let Some((pid, rest)) = line.split_once(' ') else {
                continue;
            };
            let Some((stamp, call)) = rest.trim_start().split_once(' ') else {
                continue;
            };
            let Some(at_us) = micros(stamp) else { continue };
            if let Some(head) = call.strip_suffix(" <unfinished ...>") {
                if let Some(closed) = head.strip_prefix("close(") {
                    // Another thread may get the number before this call has returned, so it is free from its beginning.
                    if let Some(descriptor) = number(closed) {
                        reader.open.remove(&descriptor);
                    }
                    continue;
                }
                begun.insert(pid.to_owned(), (at_us, head.to_owned()));
            } else if call.starts_with("<... ") {
                let Some((begin_us, head)) = begun.remove(pid) else {
                    continue;
                };
                let tail = call.split_once("resumed>").map_or("", |(_, tail)| tail);
                reader.take(begin_us, at_us, &format!("{head}{tail}"));
            } else {
                let took = call
                    .rsplit_once('<')
                    .and_then(|(_, took)| micros(took.trim_end_matches('>')));
                reader.take(at_us, at_us + took.unwrap_or(0), call);
            }
        }
        Ok(reader.recording)
    }

    /// When each call returned: the instants at which what is safe changes.
    pub fn instants(&self) -> Vec<u64> {
        let mut all: Vec<u64> = self
            .events
            .iter()
            .flat_map(|event| [event.begin_us, event.end_us])
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// How many writes and how many syncs of files there were.
    pub fn counts(&self) -> (usize, usize) {
        let count = |what: fn(&Call) -> bool| self.events.iter().filter(|event| what(&event.call)).count();
        (
            count(|call| matches!(call, Call::Write { .. })),
            count(|call| matches!(call, Call::Sync { .. })),
        )
    }

    /// Whether everything recorded, applied in order, gives the files that are below `root` now. If not, calls were missed
    /// and the rest would prove nothing.
    ///
    /// # Errors
    /// Names the first file that differs.
    pub fn check_against(&self, root: &Path) -> Result<()> {
        let mut contents: Vec<Vec<u8>> = vec![Vec::new(); self.files];
        let mut names: BTreeMap<&Path, usize> = BTreeMap::new();
        for event in &self.events {
            match &event.call {
                Call::Write { file, offset, bytes } => {
                    Change::Write(*offset, bytes.clone()).apply(&mut contents[*file]);
                }
                Call::Truncate { file, length } => Change::Truncate(*length).apply(&mut contents[*file]),
                Call::Reserve { file, length } => Change::Reserve(*length).apply(&mut contents[*file]),
                Call::Name { file, path } => {
                    names.retain(|_, named| named != file);
                    names.insert(path, *file);
                }
                Call::Unlink { path } => {
                    names.remove(path.as_path());
                }
                Call::Create | Call::Sync { .. } | Call::SyncFolder { .. } | Call::Folder { .. } => {}
            }
        }
        for (path, file) in names {
            let now =
                std::fs::read(root.join(path)).with_context(|| format!("reading {}", path.display()))?;
            let differs = now
                .iter()
                .zip(&contents[file])
                .position(|(now, recorded)| now != recorded);
            ensure!(
                differs.is_none() && now.len() == contents[file].len(),
                "{} has {} bytes and was recorded with {}, different from {differs:?} on",
                path.display(),
                now.len(),
                contents[file].len()
            );
        }
        Ok(())
    }

    /// Writes to `target` what a power cut at `at_us` could have left; `lost_share` is how likely a sector that is not safe
    /// stays what it was.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn cut(&self, at_us: u64, target: &Path, lost_share: f64, random: &mut impl Rng) -> Result<()> {
        let mut files: Vec<File> = (0..self.files).map(|_| File::default()).collect();
        let mut names: BTreeMap<PathBuf, Vec<Option<usize>>> = BTreeMap::new();
        let mut folders: Vec<&PathBuf> = Vec::new();
        // Syncs are looked at with the writes they cover: those that had returned before the sync began.
        let done = |event: &&Event| event.begin_us <= at_us;
        for event in self.events.iter().filter(done) {
            match &event.call {
                Call::Create => {}
                Call::Write { file, offset, bytes } => files[*file].write(*offset, bytes, event.end_us),
                Call::Truncate { file, length } => {
                    files[*file].open.push((event.end_us, Change::Truncate(*length)))
                }
                Call::Reserve { file, length } => {
                    files[*file].open.push((event.end_us, Change::Reserve(*length)))
                }
                Call::Folder { path } => folders.push(path),
                Call::Sync { file } if event.end_us <= at_us => {
                    files[*file].sync(event.begin_us);
                    for states in names
                        .values_mut()
                        .filter(|states| states.last() == Some(&Some(*file)))
                    {
                        states.drain(..states.len() - 1);
                    }
                }
                Call::SyncFolder { folder } if event.end_us <= at_us => {
                    for (_, states) in names.iter_mut().filter(|(path, _)| path.parent() == Some(folder)) {
                        states.drain(..states.len() - 1);
                    }
                }
                Call::Sync { .. } | Call::SyncFolder { .. } => {}
                Call::Name { file, path } => {
                    for states in names
                        .values_mut()
                        .filter(|states| states.last() == Some(&Some(*file)))
                    {
                        states.push(None);
                    }
                    names
                        .entry(path.clone())
                        .or_insert_with(|| vec![None])
                        .push(Some(*file));
                }
                Call::Unlink { path } => {
                    if let Some(states) = names.get_mut(path) {
                        states.push(None);
                    }
                }
            }
        }
        std::fs::create_dir_all(target)?;
        for folder in folders {
            std::fs::create_dir_all(target.join(folder))?;
        }
        for (path, states) in names {
            let Some(file) = states[random.random_range(0..states.len())] else {
                continue;
            };
            let path = target.join(path);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(&path, files[file].after_the_cut(lost_share, random))?;
        }
        Ok(())
    }
}

fn micros(stamp: &str) -> Option<u64> {
    let (seconds, micros) = stamp.split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?)
}

/// A file in the making: what is safe, and what may or may not have reached the disk since.
#[derive(Clone, Default)]
struct File {
    safe: Vec<u8>,
    /// Writes and truncations since, in order.
    open: Vec<(u64, Change)>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
    Reserve(usize),
}

impl File {
    fn write(&mut self, offset: usize, bytes: &[u8], end_us: u64) {
        self.open.push((end_us, Change::Write(offset, bytes.to_vec())));
    }

    fn sync(&mut self, begin_us: u64) {
        let (safe, open) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(|(end_us, _)| *end_us <= begin_us);
        self.open = open;
        let safe: Vec<(u64, Change)> = safe;
        for (_, change) in safe {
            change.apply(&mut self.safe);
        }
    }

    fn after_the_cut(&self, lost_share: f64, random: &mut impl Rng) -> Vec<u8> {
        let mut now = self.safe.clone();
        let mut lengths = vec![now.len()];
        // Each sector's states, in order; only those that a change touched have more than the safe one.
        let mut sectors: HashMap<usize, Vec<Vec<u8>>> = HashMap::new();
        for (_, change) in &self.open {
            change.apply(&mut now);
            lengths.push(now.len());
            if let Change::Write(offset, bytes) = change {
                for sector in offset / SECTOR..(offset + bytes.len()).div_ceil(SECTOR) {
                    sectors
                        .entry(sector)
                        .or_default()
                        .push(piece(&now, sector).to_vec());
                }
            }
        }
        let length = lengths[random.random_range(0..lengths.len())];
        let mut left = self.safe.clone();
        left.resize(length, 0);
        for (sector, states) in sectors {
            if random.random_bool(lost_share) {
                continue;
            }
            let begin = sector * SECTOR;
            let state = &states[random.random_range(0..states.len())];
            let end = (begin + state.len()).min(length);
            if begin < end {
                left[begin..end].copy_from_slice(&state[..end - begin]);
            }
        }
        left
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Change::Write(offset, bytes) => {
                let end = offset + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*offset..end].copy_from_slice(bytes);
            }
            Change::Truncate(length) => to.resize(*length, 0),
            Change::Reserve(length) => to.resize(to.len().max(*length), 0),
        }
    }
}

fn piece(of: &[u8], sector: usize) -> &[u8] {
    let begin = (sector * SECTOR).min(of.len());
    &of[begin..(begin + SECTOR).min(of.len())]
}

struct Reader<'a> {
    root: &'a Path,
    names: HashMap<PathBuf, usize>,
    open: HashMap<u32, Descriptor>,
    recording: Recording,
}

impl Reader<'_> {
    /// Takes one whole line of a call: `name(arguments) = result`.
    fn take(&mut self, begin_us: u64, end_us: u64, line: &str) {
        let Some((name, arguments)) = line.split_once('(') else {
            return;
        };
        let result: i64 = line
            .rsplit_once(" = ")
            .and_then(|(_, result)| result.split(' ').next()?.parse().ok())
            .unwrap_or(-1);
        if result < 0 {
            return;
        }
        let first: u32 = number(arguments).unwrap_or(u32::MAX);
        let event = |call| Event {
            begin_us,
            end_us,
            call,
        };
        match name {
            "openat" => {
                self.open.remove(&(result as u32));
                let Some(path) = self.path(arguments, 0) else {
                    return;
                };
                if arguments.contains("O_DIRECTORY") {
                    let descriptor = Descriptor {
                        file: None,
                        folder: path,
                        position: 0,
                    };
                    self.open.insert(result as u32, descriptor);
                    return;
                }
                let known = self.names.get(&path).copied();
                let file = match known {
                    Some(file) => file,
                    None if arguments.contains("O_CREAT") => {
                        let file = self.recording.files;
                        self.recording.files += 1;
                        self.names.insert(path.clone(), file);
                        self.recording.events.push(event(Call::Create));
                        self.recording.events.push(event(Call::Name {
                            file,
                            path: path.clone(),
                        }));
                        file
                    }
                    // A folder opened without O_DIRECTORY, to be synced.
                    None => {
                        let descriptor = Descriptor {
                            file: None,
                            folder: path,
                            position: 0,
                        };
                        self.open.insert(result as u32, descriptor);
                        return;
                    }
                };
                if known.is_some() && arguments.contains("O_TRUNC") {
                    self.recording
                        .events
                        .push(event(Call::Truncate { file, length: 0 }));
                }
                let descriptor = Descriptor {
                    file: Some(file),
                    folder: path,
                    position: 0,
                };
                self.open.insert(result as u32, descriptor);
            }
            "close" => {
                self.open.remove(&first);
            }
            "pwrite64" | "write" => {
                let Some(descriptor) = self.open.get_mut(&first) else {
                    return;
                };
                let Some(file) = descriptor.file else { return };
                let Some(mut bytes) = text(arguments, 0) else {
                    return;
                };
                bytes.truncate(result as usize);
                let last = arguments
                    .rsplit_once(" = ")
                    .map_or("", |(head, _)| head)
                    .trim_end_matches(')');
                let offset = if name == "write" {
                    descriptor.position
                } else {
                    last.rsplit_once(", ")
                        .and_then(|(_, offset)| offset.parse().ok())
                        .unwrap_or(0)
                };
                if name == "write" {
                    descriptor.position += bytes.len();
                }
                self.recording
                    .events
                    .push(event(Call::Write { file, offset, bytes }));
            }
            "ftruncate" => {
                let Some(file) = self.open.get(&first).and_then(|descriptor| descriptor.file) else {
                    return;
                };
                let length = arguments
                    .split_once(", ")
                    .and_then(|(_, rest)| number(rest))
                    .unwrap_or(0);
                self.recording.events.push(event(Call::Truncate { file, length }));
            }
            "fallocate" => {
                let Some(file) = self.open.get(&first).and_then(|descriptor| descriptor.file) else {
                    return;
                };
                let mut numbers = arguments
                    .split([',', ')'])
                    .skip(2)
                    .map(|text| number::<usize>(text.trim()));
                let (Some(Some(offset)), Some(Some(length))) = (numbers.next(), numbers.next()) else {
                    return;
                };
                self.recording.events.push(event(Call::Reserve {
                    file,
                    length: offset + length,
                }));
            }
            "fdatasync" | "fsync" => {
                let Some(descriptor) = self.open.get(&first) else {
                    return;
                };
                let call = match descriptor.file {
                    Some(file) => Call::Sync { file },
                    None => Call::SyncFolder {
                        folder: descriptor.folder.clone(),
                    },
                };
                self.recording.events.push(event(call));
            }
            "rename" | "renameat" | "renameat2" => {
                let (Some(from), Some(to)) = (self.path(arguments, 0), self.path(arguments, 1)) else {
                    return;
                };
                if let Some(file) = self.names.remove(&from) {
                    self.names.insert(to.clone(), file);
                    self.recording.events.push(event(Call::Name { file, path: to }));
                }
            }
            "unlink" | "unlinkat" => {
                if let Some(path) = self.path(arguments, 0)
                    && self.names.remove(&path).is_some()
                {
                    self.recording.events.push(event(Call::Unlink { path }));
                }
            }
            "mkdir" | "mkdirat" => {
                if let Some(path) = self.path(arguments, 0) {
                    self.recording.events.push(event(Call::Folder { path }));
                }
            }
            _ => {}
        }
    }

    /// The `place`th quoted argument as a path below the root.
    fn path(&self, arguments: &str, place: usize) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStringExt as _;
        let path = PathBuf::from(std::ffi::OsString::from_vec(text(arguments, place)?));
        path.strip_prefix(self.root).ok().map(Path::to_owned)
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// The `place`th quoted text; every byte is written as `\xNN`.
fn text(arguments: &str, place: usize) -> Option<Vec<u8>> {
    let quoted = arguments.split('"').nth(2 * place + 1)?.as_bytes();
    let digit = |c: u8| char::from(c).to_digit(16).map(|digit| digit as u8);
    let byte = |code: &[u8]| match code {
        [b'\\', b'x', high, low] => Some((digit(*high)? << 4) | digit(*low)?),
        _ => None,
    };
    quoted.chunks(4).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
    }

    /// A thread's `close` returns after another thread was given the same number.
    #[test]
    fn a_number_that_is_used_again_before_close_has_returned_is_the_new_files() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("faults-reused-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let open = |thread: u32, at: u32, path: &str| {
            let path = hex(path.as_bytes());
            format!(
                "{thread}  100.0000{at} openat(AT_FDCWD, \"{path}\", O_RDWR|O_CREAT, 0666) = 5 <0.000001>"
            )
        };
        let trace = [
            open(7, 10, "/d/old"),
            "7  100.000020 close(5 <unfinished ...>".to_owned(),
            open(8, 21, "/d/new"),
            "7  100.000030 <... close resumed>) = 0 <0.000010>".to_owned(),
            format!(
                "8  100.000040 pwrite64(5, \"{}\", 3, 0) = 3 <0.000001>",
                hex(b"new")
            ),
            "8  100.000050 fdatasync(5) = 0 <0.000001>".to_owned(),
        ];
        let output = folder.join("trace");
        std::fs::write(&output, trace.join("\n"))?;
        let recording = Recording::read(&output, Path::new("/d"))?;
        assert_eq!(recording.counts(), (1, 1));
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        recording.cut(100_000_060, &folder.join("left"), 0.5, &mut random)?;
        assert_eq!(std::fs::read(folder.join("left/new"))?, b"new");
        std::fs::remove_dir_all(folder)?;
        Ok(())
    }

    #[test]
    fn what_was_synced_stays_and_the_rest_is_one_of_its_states() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("faults-recording-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let (one, two, three) = ([1_u8; 1024], [2_u8; 1024], [3_u8; 512]);
        let trace = [
            format!(
                "7  100.000000 openat(AT_FDCWD, \"{}\", O_RDWR|O_CREAT, 0666) = 5 <0.000001>",
                hex(b"/d/db")
            ),
            format!(
                "7  100.000010 pwrite64(5, \"{}\", 1024, 0 <unfinished ...>",
                hex(&one)
            ),
            format!(
                "8  100.000011 pwrite64(5, \"{}\", 1024, 1024) = 1024 <0.000002>",
                hex(&two)
            ),
            "7  100.000020 <... pwrite64 resumed>) = 1024 <0.000010>".to_owned(),
            "7  100.000030 fdatasync(5) = 0 <0.000010>".to_owned(),
            format!(
                "7  100.000050 pwrite64(5, \"{}\", 512, 512) = 512 <0.000001>",
                hex(&three)
            ),
        ];
        let output = folder.join("trace");
        std::fs::write(&output, trace.join("\n"))?;
        let recording = Recording::read(&output, Path::new("/d"))?;
        assert_eq!(recording.counts(), (3, 1));
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let mut states = std::collections::BTreeSet::new();
        for _ in 0..40 {
            recording.cut(100_000_060, &folder.join("left"), 0.5, &mut random)?;
            let left = std::fs::read(folder.join("left/db"))?;
            assert_eq!(left.len(), 2048);
            assert!(left[..512] == one[..512] && left[1024..] == two);
            states.insert(left[512]);
        }
        assert_eq!(states.into_iter().collect::<Vec<_>>(), [1, 3]);
        std::fs::remove_dir_all(folder)?;
        Ok(())
    }
}
