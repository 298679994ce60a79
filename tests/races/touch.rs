//! The objects that a call touches. Two calls that touch no common object commute: no process can notice their
//! order.
//!
//! Objects are names, directories as lists of names, contents (with link count and size), and locks. A call reads
//! an object, changes it, or adds to it. Two processes' additions to a directory commute, because no process can
//! notice their order. Syncs touch nothing, because there are no power cuts here.
//!
//! A call on an open file has the path by which the file was opened. So an inode is identified by the message's id,
//! or by that path if the file is never renamed while another process has it open. A file of the reserve may be
//! renamed while it is open, so a call on an open one counts as a call on any file ([`Object::Reserved`]).

use std::collections::HashMap;

use super::turns::Op;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    Name(String),
    Dir(String),
    Inode(String),
    Lock(String),
    /// All locks, as `/proc/locks` shows them.
    Locks,
    /// A file of the reserve, under any later name.
    Reserved,
}

/// What a process observes besides its calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sees {
    /// The process reads `/proc/locks` after one of its calls.
    pub locks: bool,
}

pub const READ: u8 = 1;
pub const CHANGE: u8 = 2;
pub const ADD: u8 = 4;

/// The objects that one call touches, or all calls of a process, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched(pub HashMap<Object, u8>);

impl Touched {
    fn add(&mut self, object: Object, how: u8) {
        *self.0.entry(object).or_default() |= how;
    }

    /// Adds all objects of another one. Returns whether any was new.
    pub fn join(&mut self, other: &Touched) -> bool {
        let mut new = false;
        for (object, how) in &other.0 {
            let have = self.0.entry(object.clone()).or_default();
            new |= *have | how != *have;
            *have |= how;
        }
        new
    }

    /// Whether the order of the two matters to any process.
    pub fn conflicts(&self, other: &Touched) -> bool {
        let commute = |a: u8, b: u8| a == b && (a == READ || a == ADD);
        self.0.iter().any(|(object, how)| {
            let theirs = other.0.get(object);
            theirs.is_some_and(|theirs| !commute(*how, *theirs))
        })
    }

    /// Whether it changes anything that outlives the process.
    pub fn leaves_something(&self) -> bool {
        self.0.iter().any(|(object, how)| {
            let lock = matches!(object, Object::Lock(_) | Object::Locks | Object::Reserved);
            !lock && how & (CHANGE | ADD) != 0
        })
    }

    /// Returns what a call touches. `path` and `to` are its paths, with ids replaced by names that are the same in
    /// every schedule.
    pub fn by(op: &Op, path: &str, to: Option<&str>, sees: Sees) -> Touched {
        let mut touched = Touched::default();
        let (dir, inode) = (parent(path), inode(path));
        let named = |how: u8, touched: &mut Touched, path: &str| {
            touched.add(Object::Name(parent(path)), READ);
            touched.add(Object::Name(path.to_owned()), how);
        };
        match op.name {
            // The spool's directory. Below its parent it is a normal name.
            "open" if op.path.is_absolute() => {
                let name = if path.ends_with("/spool") {
                    "spool"
                } else {
                    ""
                };
                touched.add(Object::Name(name.to_owned()), READ);
            }
            "open" => named(READ, &mut touched, path),
            // The file may exist and be open in the other process; creating it does not change its content.
            "create" | "mkdir" => {
                named(READ | CHANGE, &mut touched, path);
                touched.add(Object::Dir(dir), ADD);
            }
            "lock" | "unlock" => {
                touched.add(Object::Lock(inode), CHANGE);
                touched.add(Object::Locks, ADD);
            }
            "read" => touched.add(Object::Inode(inode), READ),
            // The mode contains the in-use bit, which is set on an open file.
            "write" | "truncate" | "chmod" => touched.add(Object::Inode(inode), CHANGE),
            // Either of a name or of an open file, which cannot be distinguished here.
            "stat" => {
                named(READ, &mut touched, path);
                touched.add(Object::Inode(inode), READ);
            }
            "unlink" => {
                named(READ | CHANGE, &mut touched, path);
                touched.add(Object::Dir(dir), ADD);
                touched.add(Object::Inode(inode), CHANGE);
            }
            "rmdir" => {
                named(READ | CHANGE, &mut touched, path);
                touched.add(Object::Dir(path.to_owned()), READ);
                touched.add(Object::Dir(dir), ADD);
            }
            "rename" | "link" => {
                for path in [Some(path), to].into_iter().flatten() {
                    named(READ | CHANGE, &mut touched, path);
                    touched.add(Object::Dir(parent(path)), ADD);
                }
                touched.add(Object::Inode(inode), CHANGE);
            }
            "list" => {
                named(READ, &mut touched, path);
                touched.add(Object::Dir(path.to_owned()), READ);
            }
            // No process of these tests depends on the free space.
            "statvfs" | "fsync" => {}
            other => panic!("what does {other} touch?"),
        }
        let on_open = ["lock", "unlock", "read", "write", "truncate"].contains(&op.name);
        match path.starts_with("reserve/") {
            true if on_open => touched.add(Object::Reserved, CHANGE),
            false if on_open => touched.add(Object::Reserved, READ),
            _ => {}
        }
        if sees.locks && ["stat", "list"].contains(&op.name) {
            touched.add(Object::Locks, READ);
        }
        touched
    }
}

fn parent(path: &str) -> String {
    path.rsplit_once('/')
        .map_or_else(String::new, |(dir, _)| dir.to_owned())
}

/// Returns the identity of a file: a message file is the same in every queue; the message's other files are
/// separate.
fn inode(path: &str) -> String {
    let is_other = |dir: &str| {
        let first = dir.split('/').next();
        matches!(first, Some("info" | "history" | "requests"))
    };
    match path.rsplit_once('/') {
        Some((dir, name)) if !is_other(dir) && !name.contains('.') => name.to_owned(),
        _ => path.to_owned(),
    }
}
