"""The packer from Python, with real processes."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import zipfile

import keepwatch_pack
import pytest


def members(base, archive="ar.zip"):
    with zipfile.ZipFile(base / archive) as found:
        assert found.testzip() is None
        names = found.namelist()
        assert len(names) == len(set(names))
        return {name: found.read(name) for name in names}


def test_a_file_is_written_read_and_packed(tmp_path):
    with keepwatch_pack.packer(tmp_path):
        with keepwatch_pack.open("ar.zip/a/b.txt", "w+b") as f:
            f.write(b"Hello world")
            f.seek(6)
            assert f.read() == b"world"
            f.seek(0)
            f.write(b"J")
        with keepwatch_pack.open("ar.zip/text", "w+") as f:
            f.write("gr\u00fcn\r\n")
        with keepwatch_pack.open("ar.zip/large", base=tmp_path) as f:
            for number in range(300_000):
                f.write(number.to_bytes(8, "little"))
            f.truncate(2_000_000)
        assert keepwatch_pack.read("ar.zip/a/b.txt", base=tmp_path) == b"Jello world"
    report = keepwatch_pack.scavenge(tmp_path)
    assert (report["members"], report["errors"]) == (3, [])
    large = b"".join(number.to_bytes(8, "little") for number in range(300_000))[:2_000_000]
    assert members(tmp_path) == {"a/b.txt": b"Jello world", "text": "gr\u00fcn\r\n".encode(), "large": large}


def test_a_file_is_picked_up(tmp_path):
    source = tmp_path / "finished"
    source.write_text("dolor")
    with keepwatch_pack.packer(tmp_path) as packer:
        packer.pickup(source, "ar.zip/x")
        assert not source.exists()
        with pytest.raises(FileNotFoundError):
            keepwatch_pack.pickup(source, "ar.zip/x")
    keepwatch_pack.scavenge(tmp_path)
    assert members(tmp_path) == {"x": b"dolor"}


def test_what_fails_is_thrown_away_unless_asked(tmp_path):
    for success_only, expected in [(True, {}), (False, {"kept": b"half"})]:
        with keepwatch_pack.packer(tmp_path, success_only=success_only) as packer:
            with pytest.raises(RuntimeError):
                with packer.open("ar.zip/kept") as f:
                    f.write(b"half")
                    raise RuntimeError
        keepwatch_pack.scavenge(tmp_path)
        assert (members(tmp_path) if (tmp_path / "ar.zip").exists() else {}) == expected


def test_refusals(tmp_path):
    with keepwatch_pack.packer(tmp_path) as packer:
        for name in ["x/y", "ar.zip", "ar.zip/../x", "/ar.zip/x", ""]:
            with pytest.raises(ValueError):
                packer.open(name)
        with pytest.raises(ValueError):
            packer.open("ar.zip/x", "r")
        with pytest.raises(ValueError):
            packer.pickup(tmp_path, "ar.zip/x")
    with pytest.raises(OSError):
        keepwatch_pack.packer(tmp_path / "none")
    with pytest.raises(ValueError):
        keepwatch_pack.open("ar.zip/x")


def work(base, worker, count):
    with keepwatch_pack.packer(base, rotation=0.05):
        for number in range(count):
            with keepwatch_pack.open(f"ar.zip/w{worker}/{number}") as f:
                f.write(f"{worker} {number}".encode() * 50)


def expected(workers, count):
    return {f"w{w}/{n}": f"{w} {n}".encode() * 50 for w in range(workers) for n in range(count)}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_many_processes_and_a_scavenger_in_the_main_one(tmp_path, method):
    context = multiprocessing.get_context(method)
    with keepwatch_pack.scavengerd(tmp_path, rotation=0.05):
        workers = [context.Process(target=work, args=(tmp_path, worker, 200)) for worker in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
    assert members(tmp_path) == expected(4, 200)


def test_a_fork_does_not_touch_what_its_parent_stages(tmp_path):
    with keepwatch_pack.packer(tmp_path) as packer:
        with packer.open("ar.zip/before") as f:
            f.write(b"parent")
        child = os.fork()
        if child == 0:
            with packer.open("ar.zip/child") as f:
                f.write(b"child")
            packer.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        with packer.open("ar.zip/after") as f:
            f.write(b"parent")
    keepwatch_pack.scavenge(tmp_path)
    assert members(tmp_path) == {"before": b"parent", "child": b"child", "after": b"parent"}


def test_what_a_killed_process_closed_is_packed(tmp_path):
    script = """
import keepwatch_pack, sys
packer = keepwatch_pack.packer(sys.argv[1])
for number in range(10_000_000):
    with packer.open(f"ar.zip/{number}") as f:
        f.write(b"x" * 100)
    print(number, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as process:
        for line in process.stdout:
            if int(line) == 500:
                process.send_signal(signal.SIGKILL)
                break
        rest = process.stdout.read()
    last = max([500] + [int(line) for line in rest.split(b"\n")[:-1]])
    keepwatch_pack.scavenge(tmp_path)
    assert set(members(tmp_path)) >= {str(number) for number in range(last + 1)}


def test_both_in_a_coroutine(tmp_path):
    async def job():
        async with keepwatch_pack.scavengerd(tmp_path, rotation=0.05):
            async with keepwatch_pack.packer(tmp_path):
                with keepwatch_pack.open("ar.zip/x") as f:
                    f.write(b"async")

    asyncio.run(job())
    assert members(tmp_path) == {"x": b"async"}
