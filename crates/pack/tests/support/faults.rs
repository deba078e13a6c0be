//! Files in which any single operation can fail, happen and be reported as failed, or be the last one.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use keepwatch_pack::files::{Facts, File, Files};

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not happen, and fails with this error number.
    Fails(i32),
    /// It happens, and is reported as failed.
    AnswerLost,
    /// It does not happen, nor does anything after it: the process was killed just before.
    Killed,
    /// The first operation of this kind happens, whichever it is, and nothing after it.
    KilledAfter(&'static str),
    /// Half of the bytes are written, then the process is killed.
    Torn,
    /// One bit, so many hundredths into what is written, comes out as another, and nothing says so.
    Flipped(usize),
    /// Others go on, for as long as they like, before it happens.
    Stopped,
}

/// Gets the number of a look.
type Look = Box<dyn FnMut(usize) + Send>;

/// How an operation is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Right,
    Half,
    Flipped(usize),
}

/// Files with a fault at one of their operations that change something.
pub struct Faulty {
    inner: Arc<dyn Files>,
    plan: Arc<Plan>,
}

/// Which operation, and what happens there.
pub struct Plan {
    at: usize,
    fault: Fault,
    count: AtomicUsize,
    is_dead: AtomicBool,
    /// What others do meanwhile.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// What others do before every operation.
    others: Mutex<Option<Box<dyn FnMut() + Send>>>,
    /// What others do before every look, of which this is the so manieth.
    looks: Mutex<Option<Look>>,
    looked: AtomicUsize,
    /// What the operation was.
    pub hit: Mutex<Option<&'static str>>,
}

impl Faulty {
    pub fn new(inner: Arc<dyn Files>, at: usize, fault: Fault) -> (Arc<Self>, Arc<Plan>) {
        let plan = Arc::new(Plan {
            at,
            fault,
            count: AtomicUsize::new(0),
            is_dead: AtomicBool::new(false),
            meanwhile: Mutex::new(None),
            others: Mutex::new(None),
            looks: Mutex::new(None),
            looked: AtomicUsize::new(0),
            hit: Mutex::new(None),
        });
        (Arc::new(Faulty { inner, plan: Arc::clone(&plan) }), plan)
    }
}

impl Plan {
    /// What others do while the process is stopped.
    pub fn meanwhile(&self, work: impl FnOnce() + Send + 'static) {
        *self.meanwhile.lock().unwrap() = Some(Box::new(work));
    }

    /// What others do before every operation, for they are so much faster.
    pub fn always(&self, work: impl FnMut() + Send + 'static) {
        *self.others.lock().unwrap() = Some(Box::new(work));
    }

    /// What others do before the so manieth time that something is listed, looked at or opened.
    pub fn at_look(&self, work: impl FnMut(usize) + Send + 'static) {
        *self.looks.lock().unwrap() = Some(Box::new(work));
    }

    /// How often something was listed, looked at or opened.
    pub fn looked(&self) -> usize {
        self.looked.load(Ordering::SeqCst)
    }

    fn look(&self) -> io::Result<()> {
        let number = self.looked.fetch_add(1, Ordering::SeqCst);
        self.looks.lock().unwrap().iter_mut().for_each(|work| work(number));
        self.alive()
    }

    /// How many operations there were.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    fn alive(&self) -> io::Result<()> {
        if self.is_dead.load(Ordering::SeqCst) { Err(io::Error::from_raw_os_error(103)) } else { Ok(()) }
    }

    fn change<T>(&self, what: &'static str, work: impl FnOnce(How) -> io::Result<T>) -> io::Result<T> {
        self.alive()?;
        self.others.lock().unwrap().iter_mut().for_each(|work| work());
        if self.fault == Fault::KilledAfter(what) {
            self.is_dead.store(true, Ordering::SeqCst);
            return work(How::Right);
        }
        if self.count.fetch_add(1, Ordering::SeqCst) != self.at {
            return work(How::Right);
        }
        *self.hit.lock().unwrap() = Some(what);
        match self.fault {
            Fault::Fails(number) => Err(io::Error::from_raw_os_error(number)),
            Fault::AnswerLost => work(How::Right).and_then(|_| Err(io::Error::from_raw_os_error(5))),
            Fault::Flipped(percent) => work(How::Flipped(percent)),
            Fault::Stopped => {
                let meanwhile = self.meanwhile.lock().unwrap().take();
                meanwhile.into_iter().for_each(|work| work());
                work(How::Right)
            }
            Fault::Killed | Fault::KilledAfter(_) => {
                self.is_dead.store(true, Ordering::SeqCst);
                self.alive().and_then(|()| work(How::Right))
            }
            Fault::Torn => {
                let done = work(How::Half);
                self.is_dead.store(true, Ordering::SeqCst);
                done.and_then(|_| Err(io::Error::from_raw_os_error(103)))
            }
        }
    }
}

impl Files for Faulty {
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.plan.look()?;
        self.inner.list(dir)
    }

    fn stat(&self, path: &Path) -> io::Result<Facts> {
        self.plan.look()?;
        self.inner.stat(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.plan.change("create_dir", |_| self.inner.create_dir(dir))
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let inner = self.plan.change("create", |_| self.inner.create_new(path))?;
        Ok(Box::new(FaultyFile { inner, plan: Arc::clone(&self.plan) }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.plan.look()?;
        Ok(Box::new(FaultyFile { inner: self.inner.open(path)?, plan: Arc::clone(&self.plan) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.plan.change("rename", |_| self.inner.rename(from, to))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.plan.change("link", |_| self.inner.link(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.plan.change("remove", |_| self.inner.remove(path))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.plan.change("remove_dir", |_| self.inner.remove_dir(dir))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.plan.change("sync_dir", |_| self.inner.sync_dir(dir))
    }
}

struct FaultyFile {
    inner: Box<dyn File>,
    plan: Arc<Plan>,
}

impl File for FaultyFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.plan.alive()?;
        self.inner.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.plan.change("write", |how| match how {
            How::Right => self.inner.write_at(bytes, offset),
            How::Half => self.inner.write_at(&bytes[..bytes.len() / 2], offset),
            How::Flipped(percent) => {
                let mut bytes = bytes.to_vec();
                let at = bytes.len() * percent / 100;
                bytes[at] ^= 0x10;
                self.inner.write_at(&bytes, offset)
            }
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.plan.change("set_len", |_| self.inner.set_len(len))
    }

    fn sync(&self) -> io::Result<()> {
        self.plan.change("sync", |_| self.inner.sync())
    }

    fn start_sync(&self, offset: u64, len: u64) {
        self.inner.start_sync(offset, len);
    }

    fn facts(&self) -> io::Result<Facts> {
        self.plan.alive()?;
        self.inner.facts()
    }
}
