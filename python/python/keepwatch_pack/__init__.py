"""Many small files from many processes into sound zip archives, on one file system.

    with keepwatch_pack.packer("/nfs/logs"):
        with keepwatch_pack.open("logs.zip/run1/out.txt", "w+b") as f:
            f.write(b"all is well")

    with keepwatch_pack.scavengerd("/nfs/logs"):
        ...  # the main process; what workers stage is brought into logs.zip meanwhile

Both are asynchronous context managers too (`async with`). What is guaranteed stands in docs/pack-format.md of Keepwatch.
"""

from __future__ import annotations

import asyncio
import io
import os
import threading
from pathlib import Path
from typing import Any, Optional, Union

from . import _native

__all__ = ["Packer", "open", "packer", "pickup", "read", "scavenge", "scavengerd"]

StrPath = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]

# The packers that are open in this process, by base, the innermost last.
_open: list[Packer] = []


class _Member(io.RawIOBase):
    """A member that is being written, as an unbuffered binary file. Closing it stores it."""

    def __init__(self, handle: _native.Handle) -> None:
        self._handle: Optional[_native.Handle] = handle
        self._is_wanted = True

    def _get(self) -> _native.Handle:
        if self._handle is None:
            raise ValueError("I/O operation on closed file")
        return self._handle

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._get().write(bytes(data))

    def readinto(self, buffer: Any) -> int:
        data = self._get().read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._get().seek(offset, whence)

    def truncate(self, size: Optional[int] = None) -> int:
        size = self.tell() if size is None else size
        self._get().truncate(size)
        return size

    def discard(self) -> None:
        """Makes closing it throw away what was written."""
        self._is_wanted = False

    def close(self) -> None:
        handle, self._handle = self._handle, None
        try:
            if handle is not None:
                handle.finish() if self._is_wanted else handle.discard()
        finally:
            super().close()


class _Buffered(io.BufferedRandom):
    """Stored when it is closed; thrown away when the `with` block ends in an exception, unless that was asked for."""

    def __init__(self, raw: _Member, success_only: bool) -> None:
        super().__init__(raw)
        self._success_only = success_only

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None and self._success_only:
            self.raw.discard()
        super().__exit__(kind, error, trace)


class _Text(io.TextIOWrapper):
    """The same for text, in UTF-8."""

    def __init__(self, raw: _Member, success_only: bool) -> None:
        super().__init__(io.BufferedRandom(raw), encoding="utf-8", newline="")
        self._success_only = success_only

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None and self._success_only:
            self.buffer.raw.discard()
        super().__exit__(kind, error, trace)


class Packer:
    """A base that this process packs files for; see `packer`."""

    def __init__(
        self, base: StrPath, rotation: float = 300, *, success_only: bool = True, sync_each: bool = False,
        deflate: Optional[int] = None,
    ) -> None:
        self.base = Path(os.fsdecode(base))
        self._success_only = success_only
        self._native = _native.Packer(self.base, rotation, sync_each, deflate)

    def open(self, name: StrPath, mode: str = "w+b") -> Any:
        """Begins a member, as `logs.zip/run1/out.txt`. It is stored when the file is closed."""
        if mode not in ("w+b", "wb", "w+", "w"):
            raise ValueError(f"a member is opened for writing, with 'w+b' or 'w+', not {mode!r}")
        raw = _Member(self._native.create(os.fsencode(name)))
        return _Buffered(raw, self._success_only) if mode.endswith("b") else _Text(raw, self._success_only)

    def pickup(self, source: StrPath, name: StrPath) -> None:
        """Takes a finished file over, and removes it once it is safe on disk."""
        self._native.pickup(Path(os.fsdecode(source)), os.fsencode(name))

    def rotate(self) -> None:
        """Makes what was stored so far durable, and gives it to scavengers."""
        self._native.rotate()

    def close(self) -> None:
        """The same, at the end."""
        self._native.close()

    def __enter__(self) -> Packer:
        _open.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _open.remove(self)
        self.close()

    async def __aenter__(self) -> Packer:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        _open.remove(self)
        await asyncio.get_running_loop().run_in_executor(None, self.close)


packer = Packer


def _of(base: Optional[StrPath]) -> Packer:
    if base is None:
        if not _open:
            raise ValueError("no base is open: use it within `with keepwatch_pack.packer(base)`, or give `base=`")
        return _open[-1]
    wanted = Path(os.fsdecode(base))
    return next((known for known in reversed(_open) if known.base == wanted), None) or _lasting(wanted)


_lasting_packers: dict[Path, Packer] = {}


def _lasting(base: Path) -> Packer:
    """Outside of any `with packer(base)`: one for the life of the process."""
    if base not in _lasting_packers:
        _lasting_packers[base] = Packer(base)
        if len(_lasting_packers) == 1:
            import atexit

            atexit.register(lambda: [known.close() for known in _lasting_packers.values()])
    return _lasting_packers[base]


def open(name: StrPath, mode: str = "w+b", *, base: Optional[StrPath] = None) -> Any:
    """Begins a member of the innermost open base, or of `base`."""
    return _of(base).open(name, mode)


def pickup(source: StrPath, name: StrPath, *, base: Optional[StrPath] = None) -> None:
    """Takes a finished file over, for the innermost open base or for `base`."""
    _of(base).pickup(source, name)


def read(name: StrPath, *, base: StrPath) -> bytes:
    """The content of a member, from where it is packed or still staged."""
    return _native.read(Path(os.fsdecode(base)), os.fsencode(name))


def scavenge(base: StrPath, *, rotation: float = 300, flush: bool = False) -> dict[str, Any]:
    """Brings what is staged into archives, once; what it did."""
    return _native.scavenge(Path(os.fsdecode(base)), rotation, flush)


class scavengerd:
    """Collects again and again, in a thread, while the `with` block lasts; and once more at its end."""

    def __init__(self, base: StrPath, rotation: float = 300, *, every: Optional[float] = None) -> None:
        self.base = Path(os.fsdecode(base))
        self.reports: list[dict[str, Any]] = []
        self._rotation = rotation
        self._every = rotation if every is None else every
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pack-scavenger", daemon=True)
        self._error: Optional[BaseException] = None

    def _run(self) -> None:
        while True:
            is_last = self._end.is_set()
            try:
                report = scavenge(self.base, rotation=self._rotation)
                if report["claimed"] or report["errors"]:
                    self.reports = [*self.reports[-99:], report]
                self._error = None
            except OSError as error:
                # The next round may find it mended.
                self._error = error
            if is_last:
                return
            self._end.wait(self._every)

    def __enter__(self) -> scavengerd:
        self._thread.start()
        return self

    def _stop(self) -> None:
        self._end.set()
        self._thread.join()

    def __exit__(self, kind: Any, *_: object) -> None:
        self._stop()
        if self._error is not None and kind is None:
            raise self._error

    async def __aenter__(self) -> scavengerd:
        return self.__enter__()

    async def __aexit__(self, kind: Any, *_: object) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._stop)
        if self._error is not None and kind is None:
            raise self._error
