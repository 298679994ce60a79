//! A model of the file system after a power cut: what is certain, and what is undecided.
//!
//! It uses only the file-system rules of `spool-layout.md`. A file system that promises more has fewer states,
//! not other ones.
//!
//! A failed sync marks the data that it covered as clean. Even if later syncs succeed, those octets may be missing
//! after a power cut or be the old ones, until they are written again. Names are not lost this way, because they go
//! through the file system's journal, and a file system that cannot write its journal stops.
//!
//! Each replaced octet is the old one or the new one. A mode is durable with its file's data.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::log::Step;
use super::tree::{Content, Tree};

pub type Ino = usize;

const ROOT: Ino = 0;

/// What a power cut may leave of a rename.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Renames {
    /// The old name, the new one, or both. This is all that `spool-layout.md` assumes.
    #[default]
    Loose,
    /// The old name or the new one, and a sync of either directory decides, as on XFS and on ext4 with a journal.
    Atomic,
}

/// A file system with its undecided changes.
#[derive(Clone, Default)]
pub struct Model {
    renames: Renames,
    pub dirs: BTreeMap<Ino, BTreeMap<String, Slot>>,
    pub files: BTreeMap<Ino, Data>,
    /// The file that each process has open under a path.
    opened: HashMap<(usize, PathBuf), Ino>,
    process: usize,
    next: Ino,
    seq: u64,
}

/// A name in a directory.
#[derive(Clone, Default)]
pub struct Slot {
    /// The durable value.
    pub kept: Option<Ino>,
    /// The later changes; some prefix of them persists.
    pub pending: Vec<Change>,
}

/// A change of a name.
#[derive(Clone)]
pub struct Change {
    pub seq: u64,
    pub value: Option<Ino>,
    /// The change without which this one never persists. The removal of a rename's old name needs the new name. If
    /// renames are atomic, the new name also needs that removal.
    pub needs: Option<Pin>,
}

/// A reference to a change of another name.
#[derive(Clone)]
pub struct Pin {
    pub dir: Ino,
    pub name: String,
    pub seq: u64,
}

/// A file's content and mode.
#[derive(Clone, Default)]
pub struct Data {
    /// The durable content.
    pub kept: Arc<Vec<u8>>,
    /// The content after each later call.
    pub pending: Vec<Arc<Vec<u8>>>,
    /// What a failed sync may have lost: the octets that may be there instead, from each offset on.
    pub lost: Vec<(usize, Vec<u8>)>,
    /// The durable in-use bit, and its later values.
    pub marked: (bool, Vec<bool>),
}

impl Slot {
    pub fn now(&self) -> Option<Ino> {
        self.pending.last().map_or(self.kept, |last| last.value)
    }

    /// Returns the value of the name once the first `count` changes have persisted.
    pub fn after(&self, count: usize) -> Option<Ino> {
        match count {
            0 => self.kept,
            n => self.pending[n - 1].value,
        }
    }
}

impl Data {
    pub fn now(&self) -> &Arc<Vec<u8>> {
        self.pending.last().unwrap_or(&self.kept)
    }

    pub fn is_marked(&self) -> bool {
        *self.marked.1.last().unwrap_or(&self.marked.0)
    }

    fn sync(&mut self) {
        if let Some(last) = self.pending.pop() {
            self.kept = last;
            self.pending.clear();
        }
        self.marked = (self.is_marked(), Vec::new());
    }

    fn fail(&mut self) {
        let (now, kept) = (Arc::clone(self.now()), Arc::clone(&self.kept));
        // Each run of octets that differ from the durable ones, and the octets that were appended.
        let same = |at: &usize| now.get(*at) == kept.get(*at);
        let mut at = 0;
        while at < now.len().min(kept.len()) {
            let end = (at..kept.len().min(now.len())).find(same);
            let end = end.unwrap_or(kept.len().min(now.len()));
            if end > at {
                self.lost.push((at, kept[at..end].to_vec()));
            }
            at = end + 1;
        }
        if now.len() > kept.len() {
            self.lost
                .push((kept.len(), vec![0; now.len() - kept.len()]));
        }
    }

    fn replace(&mut self, at: usize, bytes: &[u8]) {
        let mut all = self.now().to_vec();
        let end = at + bytes.len();
        if all.len() < end {
            all.resize(end, 0);
        }
        all[at..end].copy_from_slice(bytes);
        // Octets that are written again are no longer lost.
        self.lost
            .retain(|(from, lost)| *from < at || from + lost.len() > end);
        self.pending.push(Arc::new(all));
    }
}

impl Model {
    /// Returns a file system on which the whole tree is durable.
    pub fn of(tree: &Tree, renames: Renames) -> Model {
        let mut model = Model {
            next: 1,
            renames,
            ..Model::default()
        };
        model.dirs.insert(ROOT, BTreeMap::new());
        let mut groups: HashMap<usize, Ino> = HashMap::new();
        for (path, node) in tree.names() {
            let ino = match node {
                None => {
                    let ino = model.fresh();
                    model.dirs.insert(ino, BTreeMap::new());
                    ino
                }
                Some(group) => *groups.entry(group).or_insert_with(|| {
                    let ino = model.fresh();
                    let (kept, is_marked) = tree.content(group).clone();
                    let data = Data {
                        kept,
                        marked: (is_marked, Vec::new()),
                        ..Data::default()
                    };
                    model.files.insert(ino, data);
                    ino
                }),
            };
            model.set(path, Some(ino), None);
        }
        model.sync_all();
        model
    }

    fn fresh(&mut self) -> Ino {
        self.next += 1;
        self.next
    }

    fn place(&self, path: &Path) -> (Ino, String) {
        let parent = path.parent().and_then(|parent| self.find(parent));
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (
            parent.unwrap_or_else(|| panic!("no directory for {path:?}")),
            name,
        )
    }

    /// Returns what a path names in the running system.
    pub fn find(&self, path: &Path) -> Option<Ino> {
        let mut at = ROOT;
        for part in path {
            at = self.dirs.get(&at)?.get(part.to_str()?)?.now()?;
        }
        Some(at)
    }

    fn set(&mut self, path: &Path, value: Option<Ino>, needs: Option<Pin>) -> Pin {
        let (dir, name) = self.place(path);
        self.seq += 1;
        let seq = self.seq;
        let slots = self.dirs.get_mut(&dir).unwrap();
        let slot = slots.entry(name.clone()).or_default();
        slot.pending.push(Change { seq, value, needs });
        Pin { dir, name, seq }
    }

    /// Applies a step of the running system.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Turn(process) => self.process = *process,
            Step::Open(path) => {
                if let Some(ino) = self.find(path) {
                    self.opened.insert((self.process, path.clone()), ino);
                }
            }
            Step::Create(path) => {
                let ino = self.find(path).unwrap_or_else(|| {
                    let ino = self.fresh();
                    self.files.insert(ino, Data::default());
                    self.set(path, Some(ino), None);
                    ino
                });
                self.opened.insert((self.process, path.clone()), ino);
            }
            Step::Write(path, bytes) => {
                let data = self.opened_file(path);
                let all = [data.now().as_slice(), bytes].concat();
                data.pending.push(Arc::new(all));
            }
            Step::Overwrite(path, at, bytes) => {
                self.opened_file(path).replace(*at as usize, bytes);
            }
            // A repair corrects the mode by name, without opening the file.
            Step::Mark(path, is_marked) => {
                let opened = self.opened.get(&(self.process, path.clone())).copied();
                let ino = opened.or_else(|| self.find(path));
                if let Some(data) = ino.and_then(|ino| self.files.get_mut(&ino)) {
                    data.marked.1.push(*is_marked);
                }
            }
            Step::Truncate(path, len) => {
                let data = self.opened_file(path);
                let mut all = data.now().to_vec();
                all.resize(*len as usize, 0);
                data.lost.retain(|(from, _)| *from < all.len());
                data.pending.push(Arc::new(all));
            }
            Step::Rename(from, to) => {
                let ino = self.find(from);
                let new = self.set(to, ino, None);
                let old = self.set(from, None, Some(new.clone()));
                if self.renames == Renames::Atomic {
                    let slot = self.dirs.get_mut(&new.dir).unwrap();
                    let change = slot.get_mut(&new.name).unwrap().pending.iter_mut();
                    change
                        .filter(|one| one.seq == new.seq)
                        .for_each(|one| one.needs = Some(old.clone()));
                }
            }
            Step::Link(from, to) => {
                let ino = self.find(from);
                self.set(to, ino, None);
            }
            Step::Unlink(path) | Step::Rmdir(path) => {
                self.set(path, None, None);
            }
            Step::Mkdir(path) => {
                let ino = self.fresh();
                self.dirs.insert(ino, BTreeMap::new());
                self.set(path, Some(ino), None);
            }
            Step::SyncFile(path) => self.opened_file(path).sync(),
            Step::SyncDir(path) => {
                // The directory that was opened, even if it has been removed since.
                let opened = self.opened.get(&(self.process, path.clone())).copied();
                if let Some(dir) = opened.or_else(|| self.find(path)) {
                    let names: Vec<String> = self.dirs[&dir].keys().cloned().collect();
                    names.iter().for_each(|name| self.keep(dir, name, u64::MAX));
                }
            }
            Step::Failed(sync) => {
                if let Step::SyncFile(path) = &**sync {
                    self.opened_file(path).fail();
                }
            }
            Step::Clock(_)
            | Step::Killed
            | Step::Acked(..)
            | Step::Did
            | Step::Delivered(..)
            | Step::Told(..) => {}
        }
    }

    fn opened_file(&mut self, path: &Path) -> &mut Data {
        let ino = self.opened.get(&(self.process, path.to_owned()));
        let ino = ino.unwrap_or_else(|| panic!("{path:?} was not opened"));
        self.files.get_mut(ino).unwrap()
    }

    fn sync_all(&mut self) {
        self.files.values_mut().for_each(Data::sync);
        for slot in self.dirs.values_mut().flat_map(BTreeMap::values_mut) {
            slot.kept = slot.now();
            slot.pending.clear();
        }
    }

    /// Makes the changes of a name up to `upto` durable, and the changes that they need.
    fn keep(&mut self, dir: Ino, name: &str, upto: u64) {
        let slot = self.dirs.get_mut(&dir).and_then(|dir| dir.get_mut(name));
        let Some(slot) = slot else { return };
        let count = slot.pending.iter().filter(|one| one.seq <= upto).count();
        slot.kept = slot.after(count);
        let kept: Vec<Change> = slot.pending.drain(..count).collect();
        for pin in kept.into_iter().filter_map(|one| one.needs) {
            self.keep(pin.dir, &pin.name, pin.seq);
        }
    }

    /// Whether a sync would make anything durable.
    pub fn would_keep(&self, sync: &Step) -> bool {
        let undecided = |dir: &BTreeMap<String, Slot>| {
            let mut slots = dir.values();
            slots.any(|slot| !slot.pending.is_empty())
        };
        match sync {
            Step::SyncFile(path) => {
                let ino = self.opened.get(&(self.process, path.clone()));
                let data = ino.and_then(|ino| self.files.get(ino));
                data.is_some_and(|data| !data.pending.is_empty() || !data.marked.1.is_empty())
            }
            Step::SyncDir(path) => {
                let opened = self.opened.get(&(self.process, path.clone())).copied();
                let dir = opened.or_else(|| self.find(path));
                dir.is_some_and(|dir| undecided(&self.dirs[&dir]))
            }
            _ => false,
        }
    }

    /// Returns the tree in which `name` gives the value of each name and `data` the content of each file.
    pub fn tree(
        &self,
        name: &dyn Fn(Ino, &str, &Slot) -> Option<Ino>,
        data: &dyn Fn(Ino, &Data) -> Content,
    ) -> Tree {
        let mut files = Vec::new();
        let mut left = vec![(String::new(), ROOT)];
        while let Some((path, dir)) = left.pop() {
            for (text, slot) in &self.dirs[&dir] {
                let Some(ino) = name(dir, text, slot) else {
                    continue;
                };
                let path = match path.as_str() {
                    "" => text.clone(),
                    path => format!("{path}/{text}"),
                };
                if self.dirs.contains_key(&ino) {
                    left.push((path.clone(), ino));
                    files.push((path, None));
                } else {
                    files.push((path, Some(ino as u64)))
                }
            }
        }
        Tree::of(files, |ino| {
            let ino = ino as Ino;
            data(ino, &self.files[&ino])
        })
    }

    /// Returns the tree of the running system.
    pub fn now(&self) -> Tree {
        let data = |_, data: &Data| (Arc::clone(data.now()), data.is_marked());
        self.tree(&|_, _, slot| slot.now(), &data)
    }
}
