//! A directory tree as a value: read from the disk, and written to it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Names, and what they name. Equal trees are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tree {
    /// None for a directory, else which of the contents. Two names of one file have the same.
    pub names: BTreeMap<PathBuf, Option<usize>>,
    pub contents: Vec<Vec<u8>>,
}

impl Tree {
    /// What is below a directory.
    pub fn read(base: &Path) -> Tree {
        let mut tree = Tree::default();
        let mut groups: HashMap<u64, usize> = HashMap::new();
        let mut left = vec![PathBuf::new()];
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(base.join(&dir)).unwrap() {
                let entry = entry.unwrap();
                let (path, meta) = (dir.join(entry.file_name()), entry.metadata().unwrap());
                let node = match meta.is_dir() {
                    true => {
                        left.push(path.clone());
                        None
                    }
                    false => Some(*groups.entry(meta.ino()).or_insert_with(|| {
                        tree.contents.push(fs::read(entry.path()).unwrap());
                        tree.contents.len() - 1
                    })),
                };
                tree.names.insert(path, node);
            }
        }
        tree.numbered()
    }

    /// The same with the contents in the order of their first names.
    pub fn numbered(&self) -> Tree {
        let mut tree = Tree::default();
        let mut numbers: HashMap<usize, usize> = HashMap::new();
        for (path, node) in &self.names {
            let node = node.map(|group| {
                *numbers.entry(group).or_insert_with(|| {
                    tree.contents.push(self.contents[group].clone());
                    tree.contents.len() - 1
                })
            });
            tree.names.insert(path.clone(), node);
        }
        tree
    }

    /// Makes it below an empty directory.
    pub fn write(&self, base: &Path) {
        let mut first: Vec<Option<PathBuf>> = vec![None; self.contents.len()];
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
            let options = options.write(true).create_new(true).mode(0o600);
            let mut file = options.open(&path).unwrap();
            file.write_all(&self.contents[group]).unwrap();
            first[group] = Some(path);
        }
    }

    /// For a report: every file, those with the same number being one, and how it looks.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (path, node) in &self.names {
            if let Some(group) = node {
                let bytes = &self.contents[*group];
                let zeros = bytes.iter().filter(|byte| **byte == 0).count();
                let len = bytes.len();
                text += &format!("    {} #{group}, {len} octets", path.display());
                text += &match zeros {
                    0 => "\n".to_owned(),
                    some => format!(", {some} of them zeros\n"),
                };
            } else if path.components().count() > 2 {
                text += &format!("    {}/\n", path.display());
            }
        }
        text
    }
}
