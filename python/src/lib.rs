//! `keepwatch_pack._native`: the packer's library for Python. What Python programs use is in `keepwatch_pack`.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use keepwatch_pack::{ArchiveName, Base, Handle, Method, Options, PackError, Packer, ScavengeOptions, Scavenger, Sync};
use pyo3::exceptions::{PyFileNotFoundError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

/// What Python programs expect of each kind of failure.
fn raised(error: &PackError) -> PyErr {
    match error {
        PackError::Name { .. } | PackError::NotAFile { .. } => PyValueError::new_err(error.to_string()),
        PackError::Absent(_) => PyFileNotFoundError::new_err(error.to_string()),
        _ => match error.io().and_then(std::io::Error::raw_os_error) {
            Some(number) => PyOSError::new_err((number, error.to_string())),
            None => PyOSError::new_err(error.to_string()),
        },
    }
}

fn seconds(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// A worker's side.
#[pyclass(name = "Packer", frozen)]
struct PyPacker {
    /// Gone when it is closed.
    packer: Mutex<Option<Packer>>,
}

impl PyPacker {
    fn get(&self) -> PyResult<Packer> {
        let packer = self.packer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        packer.clone().ok_or_else(|| PyValueError::new_err("the packer is closed"))
    }
}

#[pymethods]
impl PyPacker {
    #[new]
    #[pyo3(signature = (base, rotation=300.0, sync_each=false, deflate=None))]
    fn new(py: Python<'_>, base: PathBuf, rotation: f64, sync_each: bool, deflate: Option<u32>) -> PyResult<Self> {
        let options = Options {
            rotation: seconds(rotation)?,
            sync: if sync_each { Sync::Each } else { Sync::Rotation },
            method: deflate.map_or(Method::Stored, Method::Deflated),
            ..Options::default()
        };
        let packer = py.detach(|| Packer::open(&base, options)).map_err(|error| raised(&error))?;
        Ok(PyPacker { packer: Mutex::new(Some(packer)) })
    }

    fn create(&self, name: &[u8]) -> PyResult<PyHandle> {
        let handle = self.get()?.create(name).map_err(|error| raised(&error))?;
        Ok(PyHandle { handle: Mutex::new(Some(handle)) })
    }

    fn pickup(&self, py: Python<'_>, source: PathBuf, name: &[u8]) -> PyResult<()> {
        let packer = self.get()?;
        py.detach(|| packer.pickup(&source, name)).map_err(|error| raised(&error))
    }

    fn rotate(&self, py: Python<'_>) -> PyResult<()> {
        let packer = self.get()?;
        py.detach(|| packer.rotate()).map_err(|error| raised(&error))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let packer = self.packer.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        py.detach(|| packer.map_or(Ok(()), Packer::close)).map_err(|error| raised(&error))
    }
}

/// A member that is being written.
#[pyclass(name = "Handle", frozen)]
struct PyHandle {
    /// Gone when it is finished or thrown away.
    handle: Mutex<Option<Handle>>,
}

impl PyHandle {
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Handle) -> std::io::Result<T> + Send,
    ) -> PyResult<T> {
        py.detach(|| {
            let mut handle = self.handle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            handle.as_mut().map(work)
        })
        .ok_or_else(|| PyValueError::new_err("the member is closed"))?
        .map_err(PyErr::from)
    }

    fn take(&self) -> Option<Handle> {
        self.handle.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }
}

#[pymethods]
impl PyHandle {
    fn write(&self, py: Python<'_>, bytes: &[u8]) -> PyResult<usize> {
        self.with(py, |handle| handle.write_all(bytes).map(|()| bytes.len()))
    }

    fn read<'py>(&self, py: Python<'py>, len: usize) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.with(py, |handle| {
            let mut bytes = Vec::new();
            std::io::Read::by_ref(handle).take(len as u64).read_to_end(&mut bytes).map(|_| bytes)
        })?;
        Ok(PyBytes::new(py, &bytes))
    }

    fn seek(&self, py: Python<'_>, offset: i64, whence: u8) -> PyResult<u64> {
        let to = match whence {
            0 => SeekFrom::Start(u64::try_from(offset).map_err(|_| PyValueError::new_err("negative seek position"))?),
            1 => SeekFrom::Current(offset),
            2 => SeekFrom::End(offset),
            _ => return Err(PyValueError::new_err("whence must be 0, 1 or 2")),
        };
        self.with(py, |handle| handle.seek(to))
    }

    fn truncate(&self, py: Python<'_>, len: u64) -> PyResult<()> {
        self.with(py, |handle| handle.set_len(len))
    }

    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        let handle = self.take();
        py.detach(|| handle.map_or(Ok(()), Handle::finish)).map_err(|error| raised(&error))
    }

    fn discard(&self, py: Python<'_>) {
        let handle = self.take();
        py.detach(|| handle.into_iter().for_each(Handle::discard));
    }
}

/// One round of a scavenger; what it did.
#[pyfunction]
#[pyo3(signature = (base, rotation=300.0, flush=false))]
fn scavenge(py: Python<'_>, base: PathBuf, rotation: f64, flush: bool) -> PyResult<Bound<'_, PyDict>> {
    let options = ScavengeOptions { rotation: seconds(rotation)?, flush, ..ScavengeOptions::default() };
    let report = py
        .detach(|| Scavenger::open(&base, options).and_then(|scavenger| scavenger.scavenge()))
        .map_err(|error| raised(&error))?;
    let told = PyDict::new(py);
    told.set_item("claimed", report.claimed)?;
    told.set_item("members", report.members)?;
    told.set_item("known", report.known)?;
    told.set_item("renamed", report.renamed)?;
    told.set_item("archives", report.archives.len())?;
    told.set_item("left_open", report.left_open)?;
    told.set_item("quarantined", report.quarantined)?;
    told.set_item("errors", report.errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    Ok(told)
}

/// The content of a member, packed or still staged.
#[pyfunction]
fn read<'py>(py: Python<'py>, base: PathBuf, name: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let (archive, member) =
        ArchiveName::parse_with_member(name).map_err(|error| PyValueError::new_err(error.to_string()))?;
    let member = member.ok_or_else(|| PyValueError::new_err("the name ends with the archive"))?;
    let mut content = Vec::new();
    py.detach(|| {
        Base::open(&base)?.read(&archive, &member, &mut |piece| {
            content.extend_from_slice(piece);
            Ok(())
        })
    })
    .map_err(|error| raised(&error))?;
    Ok(PyBytes::new(py, &content))
}

/// What `keepwatch_pack` is made of.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyPacker>()?;
    module.add_class::<PyHandle>()?;
    module.add_function(wrap_pyfunction!(scavenge, module)?)?;
    module.add_function(wrap_pyfunction!(read, module)?)
}
