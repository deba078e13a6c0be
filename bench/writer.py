#!/usr/bin/env python3
"""Writes files the way busy programs do; started by the comparisons as a process of its own, so that its CPU is counted apart.

    writer.py storm DIR PROCESSES FILES   create, write, close, rename; all but each tenth are unlinked then
    writer.py paced DIR FILES PER_SECOND  create, write, close at a steady rate; prints name and CLOCK_MONOTONIC ns after close
"""

import os
import sys
import time

KEEP_EACH = 10
DIRS = 16
CONTENT = b"x" * 512


def prepare(base: str, processes: int) -> None:
    """The directories are there before, so that a watcher that has to add a watch for each is not measured at that."""
    for process in range(processes):
        for number in range(DIRS):
            os.makedirs(f"{base}/{process}/{number:02d}")


def name(process: int, number: int) -> str:
    return f"{process}/{number % DIRS:02d}/f-{process}-{number:08d}"


def storm(base: str, processes: int, files: int) -> int:
    children = []
    for process in range(processes):
        child = os.fork()
        if child == 0:
            _storm(base, process, files // processes)
            os._exit(0)
        children.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


def _storm(base: str, process: int, files: int) -> None:
    os.chdir(base)
    for number in range(files):
        path = name(process, number)
        done = path + ".done"
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        os.write(file, CONTENT)
        os.close(file)
        os.rename(path, done)
        if number % KEEP_EACH:
            os.unlink(done)


def paced(base: str, files: int, per_second: int) -> int:
    os.chdir(base)
    start, times = time.monotonic_ns(), []
    for number in range(files):
        due = start + number * 1_000_000_000 // per_second
        if (wait_ns := due - time.monotonic_ns()) > 0:
            time.sleep(wait_ns / 1e9)
        path = name(0, number)
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        os.write(file, CONTENT)
        os.close(file)
        times.append((path, time.monotonic_ns()))
    for path, time_ns in times:
        print(path, time_ns)
    return 0


if __name__ == "__main__":
    what, at, *numbers = sys.argv[1:]
    sys.exit({"storm": storm, "paced": paced}[what](at, *map(int, numbers)))
