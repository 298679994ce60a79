//! The real program on real file systems made for the test: storms of killed processes, disks that are full
//! or become read-only, and power cuts.
//!
//! Needs root, to mount, /dev/fuse, a kernel with these file systems, and Debian's e2fsprogs, xfsprogs,
//! btrfs-progs and strace. `MAILSPOOL_SEED` repeats a run as far as the scheduler allows.

mod cut;
mod cuts;
mod device;
mod full;
mod ground;
mod judge;
mod nfs;
mod passage;
#[path = "../program/mod.rs"]
mod program;
#[path = "../proof/mod.rs"]
mod proof;
mod storms;
mod weather;
mod work;
