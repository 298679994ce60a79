//! A FUSE file system that this process serves, as a layer over another file system.
//!
//! Each call becomes the same call below. Nothing is cached: the kernel asks for names and attributes each time. It
//! does not lock a directory while a name is looked up and created, as its native file systems do, and each reply
//! costs two context switches. Locks of flock(2) stay in the kernel, as with any FUSE file system that does not
//! implement them. A sync of a file or a directory is a sync of the same below, and of nothing else.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{
    DirBuilderExt, DirEntryExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    SessionACL, TimeOrNow, WriteFlags,
};
use nix::sys::statfs::{self, statfs};
use nix::sys::statvfs::{Statvfs, statvfs};

/// Every reply expires at once.
const AT_ONCE: Duration = Duration::ZERO;

/// Threads that serve calls: several, so that one sync does not delay all others.
const THREADS: usize = 4;

/// A layer over a directory, while it is mounted.
pub struct Passage(Option<BackgroundSession>);

impl Passage {
    /// Mounts the directory `below` at `point`.
    pub fn new(below: &Path, point: &Path) -> Passage {
        let server = Server {
            nodes: Mutex::new(HashMap::new()),
            open: Mutex::new(HashMap::new()),
            next: AtomicU64::new(1),
        };
        let root = Node {
            file: Arc::new(look_at(below).unwrap()),
            lookups: 1,
        };
        server.nodes.lock().unwrap().insert(INodeNo::ROOT.0, root);
        let mut config = Config::default();
        config.acl = SessionACL::All;
        config.n_threads = Some(THREADS);
        let session = fuser::spawn_mount(server, point, &config)
            .expect("tests/disks serves a file system: it needs /dev/fuse");
        let kind = statfs(point).unwrap().filesystem_type();
        assert_eq!(kind, statfs::FUSE_SUPER_MAGIC);
        Passage(Some(session))
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            let _ = session.umount_and_join();
        }
    }
}

struct Server {
    nodes: Mutex<HashMap<u64, Node>>,
    open: Mutex<HashMap<u64, Arc<Open>>>,
    /// The number of the next opened file.
    next: AtomicU64,
}

/// A file that the kernel knows by its number. It stays open, so the number is not reused.
struct Node {
    file: Arc<File>,
    lookups: u64,
}

enum Open {
    File(File),
    /// A directory, listed when it was opened.
    Dir(File, Vec<(u64, FileType, OsString)>),
}

impl Open {
    fn file(&self) -> &File {
        match self {
            Open::File(file) | Open::Dir(file, _) => file,
        }
    }
}

/// Opens a path without following a final symlink.
fn look_at(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW);
    options.open(path)
}

/// The path to reopen an open file.
fn name_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_i32(error.raw_os_error().unwrap_or(libc::EIO))
}

fn kind(of: fs::FileType) -> FileType {
    match of {
        of if of.is_dir() => FileType::Directory,
        of if of.is_symlink() => FileType::Symlink,
        of if of.is_fifo() => FileType::NamedPipe,
        of if of.is_socket() => FileType::Socket,
        _ => FileType::RegularFile,
    }
}

fn attributes(file: &File, inode: u64) -> io::Result<FileAttr> {
    let stat = file.metadata()?;
    let time =
        |seconds: i64, nanos: i64| UNIX_EPOCH + Duration::new(seconds.max(0) as u64, nanos as u32);
    Ok(FileAttr {
        ino: INodeNo(inode),
        size: stat.size(),
        blocks: stat.blocks(),
        atime: time(stat.atime(), stat.atime_nsec()),
        mtime: time(stat.mtime(), stat.mtime_nsec()),
        ctime: time(stat.ctime(), stat.ctime_nsec()),
        crtime: UNIX_EPOCH,
        kind: kind(stat.file_type()),
        perm: (stat.mode() & 0o7777) as u16,
        nlink: stat.nlink() as u32,
        uid: stat.uid(),
        gid: stat.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

impl Server {
    fn node(&self, inode: INodeNo) -> io::Result<Arc<File>> {
        let nodes = self.nodes.lock().unwrap();
        let node = nodes.get(&inode.0);
        node.map(|node| Arc::clone(&node.file))
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ESTALE))
    }

    /// The path of an entry.
    fn entry(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        Ok(name_of(&*self.node(parent)?).join(name))
    }

    /// Looks up a name; from here on the kernel knows its file.
    fn known(&self, path: &Path) -> io::Result<FileAttr> {
        let file = look_at(path)?;
        let inode = file.metadata()?.ino();
        let attributes = attributes(&file, inode)?;
        let mut nodes = self.nodes.lock().unwrap();
        let node = nodes.entry(inode).or_insert_with(|| Node {
            file: Arc::new(file),
            lookups: 0,
        });
        node.lookups += 1;
        Ok(attributes)
    }

    fn keep(&self, open: Open) -> FileHandle {
        let number = self.next.fetch_add(1, Relaxed);
        self.open.lock().unwrap().insert(number, Arc::new(open));
        FileHandle(number)
    }

    fn opened(&self, handle: FileHandle) -> io::Result<Arc<Open>> {
        let open = self.open.lock().unwrap();
        let open = open.get(&handle.0).map(Arc::clone);
        open.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    fn sync(&self, handle: FileHandle) -> io::Result<()> {
        self.opened(handle)?.file().sync_all()
    }

    fn close(&self, handle: FileHandle) {
        self.open.lock().unwrap().remove(&handle.0);
    }

    /// Reopens a known file.
    fn open_again(&self, inode: INodeNo, flags: i32) -> io::Result<File> {
        let node = self.node(inode)?;
        let mut options = OpenOptions::new();
        match flags & libc::O_ACCMODE {
            libc::O_RDONLY => options.read(true),
            libc::O_WRONLY => options.write(true),
            _ => options.read(true).write(true),
        };
        options.truncate(flags & libc::O_TRUNC != 0);
        options.open(name_of(&node))
    }

    fn change(
        &self,
        inode: INodeNo,
        (mode, owner, group): (Option<u32>, Option<u32>, Option<u32>),
        size: Option<u64>,
        times: [Option<TimeOrNow>; 2],
    ) -> io::Result<FileAttr> {
        let node = self.node(inode)?;
        let name = name_of(&node);
        if let Some(mode) = mode {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode & 0o7777);
            fs::set_permissions(&name, mode)?;
        }
        if owner.is_some() || group.is_some() {
            std::os::unix::fs::chown(&name, owner, group)?;
        }
        if let Some(size) = size {
            self.open_again(inode, libc::O_WRONLY)?.set_len(size)?;
        }
        if times.iter().any(Option::is_some) {
            let file = File::open(&name)?;
            let [accessed, modified] = times.map(|time| match time {
                None => None,
                Some(TimeOrNow::Now) => Some(SystemTime::now()),
                Some(TimeOrNow::SpecificTime(time)) => Some(time),
            });
            let mut times = fs::FileTimes::new();
            if let Some(time) = accessed {
                times = times.set_accessed(time);
            }
            if let Some(time) = modified {
                times = times.set_modified(time);
            }
            file.set_times(times)?;
        }
        attributes(&node, inode.0)
    }

    fn list(&self, inode: INodeNo) -> io::Result<Open> {
        let node = self.node(inode)?;
        let dir = File::open(name_of(&node))?;
        let mut all = Vec::new();
        for entry in fs::read_dir(name_of(&node))? {
            let entry = entry?;
            all.push((entry.ino(), kind(entry.file_type()?), entry.file_name()));
        }
        Ok(Open::Dir(dir, all))
    }
}

/// Replies with the result of a call.
macro_rules! answer {
    ($reply:ident, $result:expr, $ok:expr) => {
        match $result {
            Ok(value) => $ok($reply, value),
            Err(error) => $reply.error(errno(&error)),
        }
    };
}

fn entry(reply: ReplyEntry, found: io::Result<FileAttr>) {
    answer!(reply, found, |reply: ReplyEntry, one| {
        reply.entry(&AT_ONCE, &one, Generation(0));
    });
}

fn attr(reply: ReplyAttr, found: io::Result<FileAttr>) {
    answer!(reply, found, |reply: ReplyAttr, one| reply
        .attr(&AT_ONCE, &one));
}

fn done(reply: ReplyEmpty, result: io::Result<()>) {
    answer!(reply, result, |reply: ReplyEmpty, ()| reply.ok());
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.entry(parent, name).and_then(|path| self.known(&path));
        entry(reply, found);
    }

    fn forget(&self, _: &Request, inode: INodeNo, lookups: u64) {
        let mut nodes = self.nodes.lock().unwrap();
        if let Some(node) = nodes.get_mut(&inode.0) {
            node.lookups = node.lookups.saturating_sub(lookups);
            if node.lookups == 0 {
                nodes.remove(&inode.0);
            }
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let found = self.node(inode).and_then(|node| attributes(&node, inode.0));
        attr(reply, found);
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        owner: Option<u32>,
        group: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changed = self.change(inode, (mode, owner, group), size, [accessed, modified]);
        attr(reply, changed);
    }

    fn readlink(&self, _: &Request, inode: INodeNo, reply: ReplyData) {
        let target = self.node(inode).and_then(|node| {
            let target = nix::fcntl::readlinkat(&*node, "")?;
            Ok(target)
        });
        answer!(reply, target, |reply: ReplyData, one: OsString| reply
            .data(one.as_bytes()));
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let made = self.entry(parent, name).and_then(|path| {
            fs::DirBuilder::new().mode(mode & !umask).create(&path)?;
            self.known(&path)
        });
        entry(reply, made);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let result = self.entry(parent, name).and_then(fs::remove_file);
        done(reply, result);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let result = self.entry(parent, name).and_then(fs::remove_dir);
        done(reply, result);
    }

    fn symlink(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let made = self.entry(parent, name).and_then(|path| {
            std::os::unix::fs::symlink(target, &path)?;
            self.known(&path)
        });
        entry(reply, made);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to_parent: INodeNo,
        to_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            reply.error(Errno::EINVAL);
            return;
        }
        let result = self.entry(parent, name).and_then(|from| {
            let to = self.entry(to_parent, to_name)?;
            fs::rename(from, to)
        });
        done(reply, result);
    }

    fn link(
        &self,
        _: &Request,
        inode: INodeNo,
        to_parent: INodeNo,
        to_name: &OsStr,
        reply: ReplyEntry,
    ) {
        let made = self.node(inode).and_then(|node| {
            let path = self.entry(to_parent, to_name)?;
            let follow = nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW;
            let here = nix::fcntl::AT_FDCWD;
            nix::unistd::linkat(here, &name_of(&node), here, &path, follow)?;
            self.known(&path)
        });
        entry(reply, made);
    }

    fn open(&self, _: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let file = self.open_again(inode, flags.0);
        answer!(reply, file, |reply: ReplyOpen, file| {
            reply.opened(self.keep(Open::File(file)), FopenFlags::empty());
        });
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.entry(parent, name).and_then(|path| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).mode(mode & !umask);
            if flags & libc::O_EXCL != 0 {
                options.create_new(true)
            } else {
                options.create(true)
            };
            let file = options.open(&path)?;
            Ok((self.known(&path)?, file))
        });
        answer!(reply, made, |reply: ReplyCreate, (one, file)| {
            let handle = self.keep(Open::File(file));
            reply.created(&AT_ONCE, &one, Generation(0), handle, FopenFlags::empty());
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let bytes = self.opened(handle).and_then(|open| {
            let mut bytes = vec![0; size as usize];
            let mut have = 0;
            while have < bytes.len() {
                match open
                    .file()
                    .read_at(&mut bytes[have..], offset + have as u64)?
                {
                    0 => break,
                    got => have += got,
                }
            }
            bytes.truncate(have);
            Ok(bytes)
        });
        answer!(reply, bytes, |reply: ReplyData, bytes: Vec<u8>| reply
            .data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.opened(handle);
        let written = written.and_then(|open| open.file().write_at(bytes, offset));
        answer!(reply, written, |reply: ReplyWrite, count| reply
            .written(count as u32));
    }

    /// Called on `close`; guarantees nothing.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.close(handle);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        done(reply, self.sync(handle));
    }

    fn opendir(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let dir = self.list(inode);
        answer!(reply, dir, |reply: ReplyOpen, dir| {
            reply.opened(self.keep(dir), FopenFlags::empty());
        });
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let open = match self.opened(handle) {
            Ok(open) => open,
            Err(error) => return reply.error(errno(&error)),
        };
        let Open::Dir(_, entries) = &*open else {
            return reply.error(Errno::ENOTDIR);
        };
        let left = entries.iter().enumerate().skip(offset as usize);
        for (n, (inode, kind, name)) in left {
            if reply.add(INodeNo(*inode), n as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.close(handle);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        done(reply, self.sync(handle));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let stat = self
            .node(INodeNo::ROOT)
            .and_then(|root| Ok(statvfs(&name_of(&root))?));
        answer!(reply, stat, |reply: ReplyStatfs, stat: Statvfs| {
            reply.statfs(
                stat.blocks(),
                stat.blocks_free(),
                stat.blocks_available(),
                stat.files(),
                stat.files_free(),
                stat.block_size() as u32,
                stat.name_max() as u32,
                stat.fragment_size() as u32,
            );
        });
    }
}
