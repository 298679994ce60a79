//! What a call touches: two calls that touch nothing in common may change places, and nobody can
//! tell.
//!
//! Objects are names, directories as lists of names, contents (with link count and size), and
//! locks. A call reads an object, changes it, or adds to it: additions to one directory by two
//! processes commute, because no process can tell in which order they came. Syncs touch nothing: they are
//! about power cuts, of which there are none here. A path of a call on an open file is the one by
//! which it was opened; so an inode is known by the message's id, or by that path where a file
//! is never renamed while another process has it. A file of the reserve is: so whatever is done to one on an
//! open file may be done to any file ([`Object::Reserved`]).

use std::collections::HashMap;

use super::turns::Op;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    Name(String),
    Dir(String),
    Inode(String),
    Lock(String),
    /// All locks: what `/proc/locks` shows.
    Locks,
    /// A file of the reserve, under whatever name it has by now.
    Reserved,
}

/// What else can be told apart than by calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sees {
    /// The process looks at `/proc/locks` somewhere behind one of its calls.
    pub locks: bool,
}

pub const READ: u8 = 1;
pub const CHANGE: u8 = 2;
pub const ADD: u8 = 4;

/// What one call touches, or all calls of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched(pub HashMap<Object, u8>);

impl Touched {
    fn add(&mut self, object: Object, how: u8) {
        *self.0.entry(object).or_default() |= how;
    }

    /// Adds all of another's; says whether there was anything new.
    pub fn join(&mut self, other: &Touched) -> bool {
        let mut new = false;
        for (object, how) in &other.0 {
            let have = self.0.entry(object.clone()).or_default();
            new |= *have | how != *have;
            *have |= how;
        }
        new
    }

    /// Whether the order of the two matters to anybody.
    pub fn conflicts(&self, other: &Touched) -> bool {
        let commute = |a: u8, b: u8| a == b && (a == READ || a == ADD);
        self.0.iter().any(|(object, how)| {
            let theirs = other.0.get(object);
            theirs.is_some_and(|theirs| !commute(*how, *theirs))
        })
    }

    /// Whether it leaves anything behind that outlives the process.
    pub fn leaves_something(&self) -> bool {
        self.0.iter().any(|(object, how)| {
            let lock = matches!(object, Object::Lock(_) | Object::Locks | Object::Reserved);
            !lock && how & (CHANGE | ADD) != 0
        })
    }

    /// What a call touches. `path` and `to` are its paths with ids that are the same in every
    /// schedule.
    pub fn by(op: &Op, path: &str, to: Option<&str>, sees: Sees) -> Touched {
        let mut touched = Touched::default();
        let (dir, inode) = (parent(path), inode(path));
        let named = |how: u8, touched: &mut Touched, path: &str| {
            touched.add(Object::Name(parent(path)), READ);
            touched.add(Object::Name(path.to_owned()), how);
        };
        match op.name {
            // The spool's directory; below its parent it is a name like any other.
            "open" if op.path.is_absolute() => {
                let name = if path.ends_with("/spool") {
                    "spool"
                } else {
                    ""
                };
                touched.add(Object::Name(name.to_owned()), READ);
            }
            "open" => named(READ, &mut touched, path),
            // Another may have it open already, and its content shows that nothing else.
            "create" | "mkdir" => {
                named(READ | CHANGE, &mut touched, path);
                touched.add(Object::Dir(dir), ADD);
            }
            "lock" | "unlock" => {
                touched.add(Object::Lock(inode), CHANGE);
                touched.add(Object::Locks, ADD);
            }
            "read" => touched.add(Object::Inode(inode), READ),
            // The mode is the mark of a message in use, which is set on an open file.
            "write" | "truncate" | "chmod" => touched.add(Object::Inode(inode), CHANGE),
            // Of a name or of an open file: that cannot be told here.
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
            // No process of these tests asks how much room there is.
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

/// A message file is the same wherever it stands; the message's other files are others.
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
