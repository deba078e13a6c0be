"""File trees from a seed: the same arguments give the same names, sizes and times."""

import os
import pathlib
import random

# All times lie in the year before this moment (2026-01-01 UTC), so that two makings are alike.
NEWEST_NS = 1_767_225_600 * 10**9
YEAR_NS = 365 * 86_400 * 10**9


def many_small(base: pathlib.Path, files: int, dirs: int, seed: int) -> int:
    """Files spread evenly over directories three levels down; sparse, up to 1 MiB. Gives the number of entries."""
    rng = random.Random(seed)
    uppers = set()
    for number in range(dirs):
        upper = f"{number // 1000:03d}"
        middle = f"{upper}/{number // 100 % 10}"
        uppers |= {upper, middle}
        at = base / middle / f"{number % 100:02d}-{rng.randrange(16**6):06x}"
        at.mkdir(parents=True)
        directory = os.open(at, os.O_RDONLY)
        for file in range(number * files // dirs, (number + 1) * files // dirs):
            _sparse_file(directory, f"{rng.randrange(16**8):08x}-{file:07d}.dat", rng)
        os.close(directory)
    return files + dirs + len(uppers)


def _sparse_file(directory: int, name: str, rng: random.Random) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    file = os.open(name, flags, 0o644, dir_fd=directory)
    os.ftruncate(file, rng.randrange(1 << 20))
    mtime_ns = NEWEST_NS - rng.randrange(YEAR_NS)
    os.utime(file, ns=(mtime_ns, mtime_ns))
    os.close(file)
