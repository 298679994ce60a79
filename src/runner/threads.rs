//! The threads of a run.
//!
//! A job does its spool work on its current thread: a hand-over to another thread and back takes as long as
//! all the spool work of a delivery. Work that syncs goes to threads that may wait, so that as many syncs
//! as jobs can be under way at once, and a few flushes serve them all.
//!
//! A command is killed when the thread that started it ends (`transport/pipe/child.rs`). The job threads
//! start the commands, and stay until the run ends. So a job thread must not be replaced while it waits
//! (tokio's `block_in_place`).

use std::sync::Mutex;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};

use super::jobs::affordable;
use super::{Core, Error};

/// The most job threads, created when a run begins. One more thread assigns the jobs.
const MAX_WORKERS: usize = 4;

/// Threads that scan, that forget finished messages, and that wait for a sync.
const BESIDES_WORKERS: usize = 3;

/// Returns a runtime on this thread, or why there cannot be one.
#[cfg(feature = "cli")]
pub(crate) fn runtime() -> Result<Runtime, Error> {
    room_for_threads(1)?;
    build(&mut Builder::new_current_thread())
}

/// Returns a runtime for this many jobs at once. If address space is limited, the job threads that fit now
/// would leave no room for the work, so there are none.
fn runtime_for(jobs: usize) -> Result<Runtime, Error> {
    let is_limited = getrlimit(Resource::RLIMIT_AS).is_ok_and(|(soft, _)| soft != RLIM_INFINITY);
    let workers = if is_limited {
        0
    } else {
        jobs.min(MAX_WORKERS) + 1
    };
    match room_for_threads(workers + BESIDES_WORKERS)?.saturating_sub(BESIDES_WORKERS) {
        0 | 1 => build(&mut Builder::new_current_thread()),
        workers => build(Builder::new_multi_thread().worker_threads(workers)),
    }
}

/// Builds a runtime. tokio panics if the system refuses a descriptor, so that is tested first.
fn build(builder: &mut Builder) -> Result<Runtime, Error> {
    room_for_descriptors().map_err(Error::Runtime)?;
    builder.enable_all().build().map_err(Error::Runtime)
}

fn room_for_descriptors() -> std::io::Result<()> {
    /// What a runtime and its signal handling open, plus some for the work itself.
    const DESCRIPTORS: usize = 16;
    let pipes = (0..DESCRIPTORS / 2).map(|_| nix::unistd::pipe());
    let pipes = pipes.collect::<nix::Result<Vec<_>>>()?;
    drop(pipes);
    Ok(())
}

/// How many threads can exist at once, between one and `most`. tokio panics if it cannot have any thread,
/// and waits forever for threads that it counts on.
fn room_for_threads(most: usize) -> Result<usize, Error> {
    let hold = Mutex::new(());
    std::thread::scope(|scope| {
        let held = hold.lock();
        let wait = || drop(hold.lock());
        let spawn = || std::thread::Builder::new().spawn_scoped(scope, wait);
        let mut threads = Vec::new();
        while threads.len() < most {
            match spawn() {
                Ok(thread) => threads.push(thread),
                Err(error) if threads.is_empty() => return Err(Error::Runtime(error)),
                Err(_) => break,
            }
        }
        drop(held);
        let count = threads.len();
        // The scope would wait for the closures to return, but not for the threads to end.
        for thread in threads {
            let _ = thread.join();
        }
        Ok(count)
    })
}

/// How often a part of a job waits for a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syncs {
    /// Usually not.
    Seldom,
    Often,
}

/// Runs a part of a job that may block. It runs on this thread, or on a separate thread if it syncs or if
/// all jobs share one thread.
pub(super) async fn blocking<T: Send + 'static>(
    syncs: Syncs,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let has_many = Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
    if has_many && syncs == Syncs::Seldom {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

impl Core {
    /// Runs a future, and the tasks that it starts, to the end.
    pub(super) fn work<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        let runtime = match self.threads {
            Some(most) => {
                room_for_threads(1)?;
                build(Builder::new_current_thread().max_blocking_threads(most))
            }
            None => runtime_for(affordable(self.budget.jobs)),
        }?;
        // A spawned task continues on the thread that ends its wait. This thread would have to be woken
        // first.
        let task = runtime.spawn(work);
        let result = runtime.block_on(task);
        // Do not wait for threads that hang in a file system call.
        runtime.shutdown_background();
        Ok(result.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())))
    }
}
