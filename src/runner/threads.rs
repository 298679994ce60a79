//! The threads of a run.
//!
//! A job does what it has to do in the spool on the thread on which it is: to hand that to another and
//! back takes as long as all that it does for a delivery. What is to be synced goes to threads that may
//! wait, so that as many syncs as jobs can be under way, and few flushes serve them.
//!
//! Commands die with the thread that starts them (`transport/pipe/child.rs`). The threads of jobs start them, and
//! stay until the run ends. So none of these may be exchanged while it waits (tokio's `block_in_place`).

use std::sync::Mutex;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};

use super::jobs::affordable;
use super::{Core, Error};

/// Threads for jobs, which are made when a run begins. One more is for what hands the jobs out.
const MAX_WORKERS: usize = 4;

/// Threads that look for work, that forget what is finished, and that wait for a sync.
const BESIDES_WORKERS: usize = 3;

/// A runtime on this thread, or why there cannot be one.
#[cfg(feature = "cli")]
pub(crate) fn runtime() -> Result<Runtime, Error> {
    room_for_threads(1)?;
    build(&mut Builder::new_current_thread())
}

/// A runtime for so many jobs at once. Where address space is limited the threads that there is room for
/// now would leave none for the work.
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

/// tokio panics where the system gives it no descriptor; so that is tried before.
fn build(builder: &mut Builder) -> Result<Runtime, Error> {
    room_for_descriptors().map_err(Error::Runtime)?;
    builder.enable_all().build().map_err(Error::Runtime)
}

fn room_for_descriptors() -> std::io::Result<()> {
    /// What a runtime and its signal handling open, and some for the work itself.
    const DESCRIPTORS: usize = 16;
    let pipes = (0..DESCRIPTORS / 2).map(|_| nix::unistd::pipe());
    let pipes = pipes.collect::<nix::Result<Vec<_>>>()?;
    drop(pipes);
    Ok(())
}

/// How many threads there can be at once, up to `most`, at least one. tokio panics where it cannot
/// have any, and waits for ever for those that it counts on.
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
        // The scope would wait for what they do, and not for their end.
        for thread in threads {
            let _ = thread.join();
        }
        Ok(count)
    })
}

/// Whether a part of a job waits for a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syncs {
    /// Not as a rule.
    Seldom,
    Often,
}

/// Does a part of a job that may block: here, or, where it syncs or there is one thread for all jobs, on a
/// thread of its own.
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
    /// Carries out a piece of work and what it starts.
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
        // Whatever ends what a task waits for goes on with it. The thread here would have to be woken.
        let task = runtime.spawn(work);
        let result = runtime.block_on(task);
        // Threads that still wait for a file system that hangs are not waited for.
        runtime.shutdown_background();
        Ok(result.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())))
    }
}
