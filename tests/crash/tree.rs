//! A directory tree as a value, read from the disk and written to it. The only mode bit it keeps is the owner's
//! execute bit, which marks a message as in use.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file: its octets, and whether its in-use bit is set.
pub type Content = (Arc<Vec<u8>>, bool);

/// Names, and the files that they name. Equal trees are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tree {
    /// Paths in order, each with its index into `contents`; none for a directory. The names of one file have the
    /// same index. The contents are in the order of their first names.
    names: Vec<(String, Option<usize>)>,
    contents: Vec<Content>,
}

impl Tree {
    /// Returns the tree of paths. Each comes with none for a directory, or a number that is the same for all names
    /// of one file.
    pub fn of(mut files: Vec<(String, Option<u64>)>, content: impl FnMut(u64) -> Content) -> Tree {
        files.sort_unstable();
        // In the order of their first names. A linear search will do, because there are few.
        let mut all: Vec<u64> = Vec::new();
        let mut number = |file: u64| {
            let known = all.iter().position(|name| *name == file);
            known.unwrap_or_else(|| {
                all.push(file);
                all.len() - 1
            })
        };
        let files = files.into_iter();
        let names = files.map(|(path, file)| (path, file.map(&mut number)));
        Tree {
            names: names.collect(),
            contents: all.into_iter().map(content).collect(),
        }
    }

    /// Reads everything below a directory.
    pub fn read(base: &Path) -> Tree {
        let mut files = Vec::new();
        let mut paths: HashMap<u64, PathBuf> = HashMap::new();
        let mut left = vec![String::new()];
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(base.join(&dir)).unwrap() {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                let path = match dir.as_str() {
                    "" => name,
                    dir => format!("{dir}/{name}"),
                };
                let meta = entry.metadata().unwrap();
                let file = (!meta.is_dir()).then(|| meta.ino());
                match file {
                    None => left.push(path.clone()),
                    Some(ino) => drop(paths.insert(ino, entry.path())),
                }
                files.push((path, file));
            }
        }
        Tree::of(files, |ino| {
            let path = &paths[&ino];
            let mode = fs::metadata(path).unwrap().permissions().mode();
            (Arc::new(fs::read(path).unwrap()), mode & 0o100 != 0)
        })
    }

    /// Returns each path and the index of the file that it names; none for a directory.
    pub fn names(&self) -> impl Iterator<Item = (&Path, Option<usize>)> {
        self.names
            .iter()
            .map(|(path, node)| (Path::new(path), *node))
    }

    /// Returns each path that names a file, and the file's octets.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &Arc<Vec<u8>>)> {
        self.names()
            .filter_map(|(path, node)| Some((path, &self.contents[node?].0)))
    }

    /// Returns the content of a file.
    pub fn content(&self, file: usize) -> &Content {
        &self.contents[file]
    }

    /// Whether a path exists.
    pub fn has(&self, path: &Path) -> bool {
        let path = path.to_str().unwrap();
        let order = |(name, _): &(String, _)| name.as_str().cmp(path);
        self.names.binary_search_by(order).is_ok()
    }

    /// Writes the tree into an empty directory.
    pub fn write(&self, base: &Path) {
        let mut first: Vec<Option<PathBuf>> = vec![None; self.contents.len()];
        // A directory comes before its entries.
        for (path, node) in &self.names {
            let path = base.join(path);
            let Some(group) = *node else {
                DirBuilder::new().mode(0o700).create(&path).unwrap();
                continue;
            };
            if let Some(first) = &first[group] {
                fs::hard_link(first, &path).unwrap();
                continue;
            }
            let mut options = OpenOptions::new();
            let (bytes, is_marked) = &self.contents[group];
            let mode = if *is_marked { 0o700 } else { 0o600 };
            let options = options.write(true).create_new(true).mode(mode);
            let mut file = options.open(&path).unwrap();
            file.write_all(bytes).unwrap();
            first[group] = Some(path);
        }
    }

    /// Returns a listing of all files for a report. Names with the same number are one file.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (path, node) in &self.names {
            if let Some(group) = node {
                let (bytes, is_marked) = &self.contents[*group];
                let zeros = bytes.iter().filter(|byte| **byte == 0).count();
                let len = bytes.len();
                text += &format!("    {path} #{group}, {len} octets");
                if *is_marked {
                    text += ", in use";
                }
                text += &match zeros {
                    0 => "\n".to_owned(),
                    some => format!(", {some} of them zeros\n"),
                };
            } else if path.matches('/').count() > 1 {
                text += &format!("    {path}/\n");
            }
        }
        text
    }
}
