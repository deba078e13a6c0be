"""A real job: the test modules of a public package, run side by side, each writing its log through the packer on a network
file system, from Python and from `keepwatch pack put`, with a plain file beside it to be held against."""

import collections
import hashlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import keepwatch_pack
import networkx
import pytest

SFTP_SERVER = "/usr/lib/openssh/sftp-server"
WORKERS = 8
# Of the package's modules; all of them at full size.
SMALL = 24


def skipped(test, why):
    print(f"KEEPWATCH-SKIPPED: {test}: {why}", file=sys.stderr)
    if "KEEPWATCH_REQUIRE_ALL" in os.environ:
        pytest.fail(f"{test} must run here: {why}")
    pytest.skip(why)


@pytest.fixture
def mounted(tmp_path):
    """A directory over sshfs, whose server is spoken to over a pipe: no daemon, no key."""
    near, far, wrapper = tmp_path / "ne'ar \"", tmp_path / "far", tmp_path / "ssh"
    near.mkdir()
    far.mkdir()
    wrapper.write_text(f"#!/bin/sh\nexec {SFTP_SERVER}\n")
    wrapper.chmod(0o755)
    command = ["sshfs", "-o", f"ssh_command={wrapper}", f"nowhere:{far}", near]
    if not (shutil.which("sshfs") and Path(SFTP_SERVER).exists()) or subprocess.run(command).returncode:
        skipped("the job", "it needs sshfs, openssh-sftp-server and the right to mount")
    yield near
    subprocess.run(["fusermount", "-uz", near])


@pytest.fixture
def program():
    found = os.environ.get("KEEPWATCH_PROGRAM")
    if not found:
        skipped("the job", "KEEPWATCH_PROGRAM does not say where keepwatch is")
    return found


def modules():
    """The package's test modules, in an order that mixes long and short ones."""
    found = Path(networkx.__file__).parent.rglob("tests/test_*.py")
    mixed = sorted(found, key=lambda path: hashlib.sha256(path.name.encode()).digest())
    return mixed if "KEEPWATCH_FULL" in os.environ else mixed[:SMALL]


def run(module, logs):
    """Runs one; what it prints goes to all logs as it comes."""
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", str(module)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        for line in process.stdout:
            for log in logs:
                log.write(line)
                log.flush()
    return process.returncode


def work(base, plain, program, tasks, results):
    with keepwatch_pack.packer(base, rotation=2):
        for number, module in iter(tasks.get, None):
            rel = f"{number % 7}/{module.parent.parent.name}-{module.stem}-{number}.log"
            beside = plain / f"job{number % 3}.zip" / rel
            beside.parent.mkdir(parents=True, exist_ok=True)
            name = f"job{number % 3}.zip/{rel}"
            with beside.open("wb") as file:
                if number % 2:
                    with keepwatch_pack.open(name) as log:
                        code = run(module, [file, log])
                else:
                    put = [program, "pack", "put", name, "-d", base]
                    with subprocess.Popen(put, stdin=subprocess.PIPE) as stored:
                        code = run(module, [file, stored.stdin])
                    assert stored.returncode == 0
            results.put((number, code))


def test_the_logs_of_a_job(mounted, program):
    base, plain = mounted / "base", mounted / "plain"
    base.mkdir()
    plain.mkdir()
    context = multiprocessing.get_context("spawn")
    tasks, results = context.Queue(), context.Queue()
    found = modules()
    for task in [*enumerate(found), *[None] * WORKERS]:
        tasks.put(task)
    # One in this process and one beside it, on the same base.
    beside = subprocess.Popen([program, "pack", "scavenge", "-d", base, "--every", "1s"], stdout=subprocess.DEVNULL)
    start = time.monotonic()
    try:
        with keepwatch_pack.scavengerd(base, rotation=2):
            workers = [context.Process(target=work, args=(base, plain, program, tasks, results)) for _ in range(WORKERS)]
            for worker in workers:
                worker.start()
            codes = dict(results.get(timeout=600) for _ in found)
            for worker in workers:
                worker.join()
                assert worker.exitcode == 0
    finally:
        beside.terminate()
        beside.wait()
    seconds = time.monotonic() - start
    # What the other one had claimed when it was ended.
    subprocess.run([program, "pack", "scavenge", "-d", base], check=True, stdout=subprocess.DEVNULL)
    packed = {}
    for archive in base.glob("*.zip"):
        subprocess.run(["unzip", "-tqq", archive], check=True)
        with zipfile.ZipFile(archive) as opened:
            names = opened.namelist()
            assert len(names) == len(set(names))
            packed.update({f"{archive.name}/{name}": opened.read(name) for name in names})
    written = {str(path.relative_to(plain)): path.read_bytes() for path in plain.rglob("*.log")}
    assert len(written) == len(found)
    assert packed.keys() == written.keys()
    assert [name for name, content in written.items() if packed[name] != content] == []
    # The logs are what the modules had to say, and most of them had nothing to complain of.
    assert all(b"test session starts" in content for content in packed.values())
    assert collections.Counter(codes.values())[0] > len(found) * 0.8
    for name in list(written)[:10]:
        assert keepwatch_pack.read(name, base=base) == written[name]
    status = subprocess.run([program, "pack", "status", "-d", base], stdout=subprocess.PIPE, text=True)
    assert status.returncode == 0 and "nothing is staged" in status.stdout, status.stdout
    print(f"{len(found)} logs, {sum(map(len, written.values()))} bytes, {seconds:.1f} s")
