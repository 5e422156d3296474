//! What is to be done next, for all threads of a backup.
//!
//! The order keeps memory and open files bounded: data that is in memory comes first, then files of directories that are
//! open, and only then another directory, the one found last (depth first). While as many large files wait as may be
//! read at the same time, no directory is listed, even if a thread has nothing else to do: each of these files keeps its
//! directory open. So the directories that are open at the same time are those on the way from the root to what the
//! threads work on, and to as many large files again as are being read.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Something to do, by how urgent it is. `H`: pieces to hash, `L`: large files or sections of them, `F`: small files of
/// one directory, `D`: a directory to list.
#[derive(Debug)]
pub(super) enum Task<H, L, F, D> {
    /// Hash and store what another thread has read.
    Hash(H),
    /// Read a large file, or a section of one.
    Large(L),
    /// Read small files.
    Files(F),
    /// List a directory.
    Directory(D),
}

/// What a thread that asks for work is told.
#[derive(Debug)]
pub(super) enum Next<T> {
    /// Do this.
    Do(T),
    /// There is nothing to do right now.
    Nothing,
    /// It is over.
    Stop,
}

#[derive(Debug)]
struct Queues<H, L, F, D> {
    hash: VecDeque<H>,
    large: VecDeque<L>,
    /// Of each directory what is left of its files and of the directories in it, from which the tasks are taken one by
    /// one: a directory may have a million.
    files: VecDeque<F>,
    directories: Vec<D>,
    reading_large: usize,
    waiting: usize,
    stopped: bool,
}

/// The work that is left, shared by the threads.
#[derive(Debug)]
pub(super) struct Scheduler<H, L, F, D> {
    queues: Mutex<Queues<H, L, F, D>>,
    changed: Condvar,
    max_large: usize,
}

impl<H, L, F: ExactSizeIterator, D: ExactSizeIterator> Scheduler<H, L, F, D> {
    /// No work yet. At most `max_large` threads read large files at the same time.
    pub(super) fn new(max_large: usize) -> Self {
        Self {
            queues: Mutex::new(Queues {
                hash: VecDeque::new(),
                large: VecDeque::new(),
                files: VecDeque::new(),
                directories: Vec::new(),
                reading_large: 0,
                waiting: 0,
                stopped: false,
            }),
            changed: Condvar::new(),
            max_large: max_large.max(1),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queues<H, L, F, D>> {
        // Nothing that could panic runs under the lock.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a large file or a section of one.
    pub(super) fn push_large(&self, task: L) {
        let mut queues = self.lock();
        if queues.stopped {
            return;
        }
        queues.large.push_back(task);
        if queues.waiting > 0 {
            self.changed.notify_one();
        }
    }

    /// Adds what a directory was found to hold.
    pub(super) fn push_found(&self, large: Vec<L>, files: F, directories: D) {
        let mut queues = self.lock();
        if queues.stopped {
            return;
        }
        let added = large.len() + files.len() + directories.len();
        queues.large.extend(large);
        if files.len() > 0 {
            queues.files.push_back(files);
        }
        if directories.len() > 0 {
            queues.directories.push(directories);
        }
        match added.min(queues.waiting) {
            0 => {}
            1 => self.changed.notify_one(),
            _ => self.changed.notify_all(),
        }
    }

    /// Work for this thread; with `wait` it waits until there is some.
    pub(super) fn next(&self, wait: bool) -> Next<Task<H, L, F::Item, D::Item>> {
        let mut queues = self.lock();
        loop {
            if queues.stopped {
                return Next::Stop;
            }
            if let Some(task) = queues.take(self.max_large) {
                // What was taken may have made room for a directory; then whoever waits for one is told.
                if queues.waiting > 0 && queues.has_work(self.max_large) {
                    self.changed.notify_one();
                }
                return Next::Do(task);
            }
            if !wait {
                return Next::Nothing;
            }
            queues.waiting += 1;
            queues = self.changed.wait(queues).unwrap_or_else(PoisonError::into_inner);
            queues.waiting -= 1;
        }
    }

    /// Says that a task of the kind [`Task::Large`] is done, so that another may begin.
    pub(super) fn large_done(&self) {
        let mut queues = self.lock();
        queues.reading_large = queues.reading_large.saturating_sub(1);
        if queues.waiting > 0 && queues.has_work(self.max_large) {
            self.changed.notify_one();
        }
    }

    /// Gives work to a thread that has none; if all have some, the work comes back.
    pub(super) fn offer(&self, task: H) -> Option<H> {
        let mut queues = self.lock();
        if queues.stopped || queues.waiting <= queues.hash.len() {
            return Some(task);
        }
        queues.hash.push_back(task);
        self.changed.notify_one();
        None
    }

    /// Ends the work: what is left is forgotten, all threads are told to stop.
    pub(super) fn stop(&self) {
        let mut queues = self.lock();
        queues.stopped = true;
        let left = (
            std::mem::take(&mut queues.hash),
            std::mem::take(&mut queues.large),
            std::mem::take(&mut queues.files),
            std::mem::take(&mut queues.directories),
        );
        drop(queues);
        self.changed.notify_all();
        drop(left);
    }
}

impl<H, L, F: ExactSizeIterator, D: ExactSizeIterator> Queues<H, L, F, D> {
    fn take(&mut self, max_large: usize) -> Option<Task<H, L, F::Item, D::Item>> {
        if let Some(task) = self.hash.pop_front() {
            return Some(Task::Hash(task));
        }
        if self.reading_large < max_large
            && let Some(task) = self.large.pop_front()
        {
            self.reading_large += 1;
            return Some(Task::Large(task));
        }
        if let Some(files) = self.files.front_mut() {
            let task = files.next();
            // What is left holds its directory, so it goes when it is empty and not when it is looked at again.
            if files.len() == 0 {
                self.files.pop_front();
            }
            return task.map(Task::Files);
        }
        if self.may_list(max_large)
            && let Some(directories) = self.directories.last_mut()
        {
            let task = directories.next();
            if directories.len() == 0 {
                self.directories.pop();
            }
            return task.map(Task::Directory);
        }
        None
    }

    /// Whether there is something to take.
    fn has_work(&self, max_large: usize) -> bool {
        !self.hash.is_empty()
            || (self.reading_large < max_large && !self.large.is_empty())
            || !self.files.is_empty()
            || (self.may_list(max_large) && !self.directories.is_empty())
    }

    /// Whether another directory may be opened. If not, as many large files as possible are being read; whoever is done
    /// with one takes the next, so the time for the directories comes.
    fn may_list(&self, max_large: usize) -> bool {
        self.large.len() < max_large
    }
}

#[cfg(test)]
mod tests {
    use std::vec::IntoIter;

    use super::*;

    type Work = Scheduler<u8, u8, IntoIter<u8>, IntoIter<u8>>;

    fn found(work: &Work, large: Vec<u8>, files: Vec<u8>, directories: Vec<u8>) {
        work.push_found(large, files.into_iter(), directories.into_iter());
    }

    fn next(work: &Work) -> String {
        match work.next(false) {
            Next::Do(task) => format!("{task:?}"),
            Next::Nothing => "nothing".to_owned(),
            Next::Stop => "stop".to_owned(),
        }
    }

    #[test]
    fn what_frees_memory_comes_first() {
        let work = Work::new(1);
        assert_eq!(next(&work), "nothing");
        found(&work, vec![], vec![], vec![9]);
        found(&work, vec![1], vec![3], vec![4, 5]);
        work.lock().hash.push_back(0);
        let order = ["Hash(0)", "Large(1)", "Files(3)", "Directory(4)", "Directory(5)"];
        for expected in order {
            assert_eq!(next(&work), expected);
        }
        work.push_large(2);
        assert_eq!(next(&work), "nothing");
        work.large_done();
        assert_eq!(next(&work), "Large(2)");
        assert_eq!(next(&work), "Directory(9)");
        // Nobody waits, so nobody could take it.
        assert_eq!(work.offer(7), Some(7));
        work.stop();
        assert_eq!(next(&work), "stop");
    }

    #[test]
    fn directories_wait_while_large_files_do() {
        let work = Work::new(2);
        found(&work, vec![1, 2, 3, 4, 5], vec![], vec![6]);
        for expected in ["Large(1)", "Large(2)", "nothing"] {
            assert_eq!(next(&work), expected);
        }
        work.large_done();
        assert_eq!(next(&work), "Large(3)");
        assert_eq!(next(&work), "nothing");
        // What is in memory and what is in open directories is taken all the same.
        found(&work, vec![], vec![7], vec![]);
        work.lock().hash.push_back(8);
        for expected in ["Hash(8)", "Files(7)", "nothing"] {
            assert_eq!(next(&work), expected);
        }
        work.large_done();
        for expected in ["Large(4)", "Directory(6)", "nothing"] {
            assert_eq!(next(&work), expected);
        }
    }

    #[test]
    fn a_thread_that_waits_for_a_directory_is_woken_when_another_takes_a_large_file() {
        let work = std::sync::Arc::new(Work::new(1));
        found(&work, vec![1, 2], vec![], vec![3]);
        assert_eq!(next(&work), "Large(1)");
        let thread = std::thread::spawn({
            let work = std::sync::Arc::clone(&work);
            move || matches!(work.next(true), Next::Do(Task::Directory(3)))
        });
        while work.lock().waiting == 0 && !thread.is_finished() {
            std::thread::yield_now();
        }
        // The large file is done, but nobody says so: it is the taking of the next one that wakes.
        work.lock().reading_large = 0;
        assert_eq!(next(&work), "Large(2)");
        assert!(thread.join().unwrap());
    }

    #[test]
    fn a_waiting_thread_is_woken() {
        let work = std::sync::Arc::new(Work::new(1));
        let thread = std::thread::spawn({
            let work = std::sync::Arc::clone(&work);
            move || {
                let first = work.next(true);
                (
                    matches!(first, Next::Do(Task::Hash(7))),
                    matches!(work.next(true), Next::Stop),
                )
            }
        });
        while work.offer(7).is_some() {
            std::thread::yield_now();
        }
        while !work.lock().hash.is_empty() {
            std::thread::yield_now();
        }
        work.stop();
        assert_eq!(thread.join().unwrap(), (true, true));
    }
}
