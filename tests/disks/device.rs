//! A block device that logs its requests in order.
//!
//! A loop device uses the only file of a small FUSE file system, which this process serves. The kernel's loop
//! driver turns each request of the file system above into a call:
//!
//! - a write into FUSE_WRITE. The file is opened with `FOPEN_DIRECT_IO` and without a write-back
//!   cache, so the page cache of that file neither holds nor merges writes: the driver gets its reply
//!   when the write is in the log.
//! - a flush (REQ_PREFLUSH) into FUSE_FSYNC. The driver announces a volatile cache and no FUA, so
//!   the block layer turns an FUA request of the file system into a flush after the write.
//! - a discard into FUSE_FALLOCATE, which is refused; discards are optional.
//!
//! One thread serves one request after the other, so a flush covers exactly what precedes it in the log. The
//! test's marks go into the same log: requests logged before an acknowledgement reached the device before it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, WriteFlags,
};

const PAGE: usize = 4096;
const NAME: &str = "image";
const FILE: INodeNo = INodeNo(2);
const LONG: Duration = Duration::from_secs(3600);

/// The octets of a disk. Unwritten parts are zeros.
#[derive(Clone, Default)]
pub struct Image {
    pages: HashMap<u64, Box<[u8; PAGE]>>,
    size: u64,
}

/// What the device saw, and what the test knew.
#[derive(Clone, Debug)]
pub enum Event<M> {
    Write {
        offset: u64,
        bytes: Arc<[u8]>,
    },
    /// A flush arrived.
    FlushBegins,
    /// The reply to the flush is about to be sent.
    FlushEnds,
    Mark(M),
}

/// A log that is still being written.
pub struct Log<M>(Arc<Mutex<Vec<Event<M>>>>);

/// The device: a file that can be mounted through a loop device.
pub struct Device<M> {
    pub path: PathBuf,
    pub log: Log<M>,
    session: Option<BackgroundSession>,
}

struct Server<M> {
    image: Mutex<Image>,
    log: Log<M>,
}

impl<M> Clone for Log<M> {
    fn clone(&self) -> Log<M> {
        Log(Arc::clone(&self.0))
    }
}

impl<M> Log<M> {
    pub fn mark(&self, mark: M) {
        self.push(Event::Mark(mark));
    }

    fn push(&self, event: Event<M>) {
        self.0.lock().unwrap().push(event);
    }

    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl<M: Send + 'static> Device<M> {
    /// Serves an image at a directory.
    pub fn new(point: &Path, image: Image) -> Device<M> {
        let log = Log(Arc::default());
        let server = Server {
            image: Mutex::new(image),
            log: log.clone(),
        };
        let session = fuser::spawn_mount(server, point, &Config::default())
            .expect("tests/disks serves a device: it needs /dev/fuse");
        Device {
            path: point.join(NAME),
            log,
            session: Some(session),
        }
    }

    /// Stops the device, and returns its log.
    pub fn end(mut self) -> Vec<Event<M>> {
        let session = self.session.take().unwrap();
        session.umount_and_join().unwrap();
        std::mem::take(&mut self.log.0.lock().unwrap())
    }
}

impl Image {
    pub fn read_from(path: &Path) -> Image {
        let mut file = fs::File::open(path).unwrap();
        let mut image = Image {
            size: file.metadata().unwrap().len(),
            ..Image::default()
        };
        let mut chunk = vec![0; 1 << 20];
        let mut offset = 0;
        loop {
            let got = file.read(&mut chunk).unwrap();
            if got == 0 {
                return image;
            }
            for (n, page) in chunk[..got].chunks(PAGE).enumerate() {
                if page != &[0; PAGE][..page.len()] {
                    image.write(offset + (n * PAGE) as u64, page);
                }
            }
            offset += got as u64;
        }
    }

    pub fn write_to(&self, path: &Path) {
        let file = fs::File::create(path).unwrap();
        file.set_len(self.size).unwrap();
        for (number, page) in &self.pages {
            file.write_all_at(&page[..], number * PAGE as u64).unwrap();
        }
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.each_part(offset, bytes.len(), |image, number, within, part| {
            let page = image
                .pages
                .entry(number)
                .or_insert_with(|| Box::new([0; PAGE]));
            page[within..within + part.len()].copy_from_slice(&bytes[part]);
        });
    }

    fn read(&mut self, offset: u64, size: usize) -> Vec<u8> {
        let size = size.min(self.size.saturating_sub(offset) as usize);
        let mut bytes = vec![0; size];
        self.each_part(offset, size, |image, number, within, part| {
            if let Some(page) = image.pages.get(&number) {
                let length = part.len();
                bytes[part].copy_from_slice(&page[within..within + length]);
            }
        });
        bytes
    }

    /// For each page: its number, the offset in it, and the part of the octets that it covers.
    fn each_part(
        &mut self,
        offset: u64,
        size: usize,
        mut with: impl FnMut(&mut Image, u64, usize, std::ops::Range<usize>),
    ) {
        let mut done = 0;
        while done < size {
            let at = offset + done as u64;
            let within = (at % PAGE as u64) as usize;
            let length = (PAGE - within).min(size - done);
            with(self, at / PAGE as u64, within, done..done + length);
            done += length;
        }
    }
}

impl<M: Send + 'static> Filesystem for Server<M> {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&LONG, &self.attributes(FILE), Generation(0))
        } else {
            reply.error(Errno::ENOENT)
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&LONG, &self.attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let bytes = self.image.lock().unwrap().read(offset, size as usize);
        reply.data(&bytes);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.image.lock().unwrap().write(offset, bytes);
        self.log.push(Event::Write {
            offset,
            bytes: bytes.into(),
        });
        reply.written(bytes.len() as u32);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.log.push(Event::FlushBegins);
        self.log.push(Event::FlushEnds);
        reply.ok();
    }

    /// Called on `close`; guarantees nothing.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EOPNOTSUPP);
    }
}

impl<M> Server<M> {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let size = self.image.lock().unwrap().size;
        FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: match inode {
                FILE => FileType::RegularFile,
                _ => FileType::Directory,
            },
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: PAGE as u32,
            flags: 0,
        }
    }
}
