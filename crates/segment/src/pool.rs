//! A few threads that read and decode; one pool per process.
//!
//! Jobs never wait for readers: a scan hands in a bounded number of jobs and hands in the next when
//! a result was taken, so a slow reader holds no thread.

use std::{
    collections::VecDeque,
    num::NonZero,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::OnceLock,
    thread,
};

use parking_lot::{Condvar, Mutex};

/// Most threads of the pool.
const MAX_THREADS: usize = 32;

type Job = Box<dyn FnOnce() + Send>;

struct Pool {
    jobs: Mutex<VecDeque<Job>>,
    ready: Condvar,
}

fn pool() -> &'static Pool {
    static POOL: OnceLock<&'static Pool> = OnceLock::new();
    POOL.get_or_init(|| {
        let pool: &'static Pool =
            Box::leak(Box::new(Pool { jobs: Mutex::new(VecDeque::new()), ready: Condvar::new() }));
        for number in 0..threads() {
            let worker = move || {
                loop {
                    let job = {
                        let mut jobs = pool.jobs.lock();
                        loop {
                            match jobs.pop_front() {
                                Some(job) => break job,
                                None => pool.ready.wait(&mut jobs),
                            }
                        }
                    };
                    // The job's result channel closes with it, which its scan reports.
                    let _ = catch_unwind(AssertUnwindSafe(job));
                }
            };
            thread::Builder::new()
                .name(format!("scan-{number}"))
                .spawn(worker)
                .expect("a thread can be started");
        }
        pool
    })
}

/// Threads of the pool.
pub fn threads() -> usize {
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(|| thread::available_parallelism().map_or(2, NonZero::get).min(MAX_THREADS))
}

/// Runs a job on the pool.
pub fn spawn(job: impl FnOnce() + Send + 'static) {
    let pool = pool();
    pool.jobs.lock().push_back(Box::new(job));
    pool.ready.notify_one();
}
