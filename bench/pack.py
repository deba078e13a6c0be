"""The packer beside zip and tar: many small files into one archive; one more file for an archive of a million; reading one."""

import os
import pathlib
import random
import shutil
import statistics
import subprocess
import time
import zipfile

import harness


def arguments(parser) -> None:
    parser.add_argument("--files", type=int, default=100_000, help="how many files (default: %(default)s)")
    parser.add_argument("--bytes", type=int, default=2048, help="the length of each (default: %(default)s)")
    parser.add_argument("--members", type=int, default=1_000_000, help="of the large archive (default: %(default)s)")


def run(options) -> None:
    ours = harness.build("-p", "keepwatch-pack", "--example", "pack_tree")
    peers = {name: harness.peer(name, name) for name in ("zip", "tar")}
    for program in peers.values():
        print(f"{program}: {harness.version(program)}")
    size = 4 * options.files * (options.bytes + 4096) + options.members * 1000 + (1 << 30)
    with harness.place(size, options.files * 2 + 100_000, options.tmpfs) as base:
        harness.say(f"making {options.files} files of {options.bytes} bytes, seed {options.seed}")
        _make(base / "src", options)
        _many(ours, peers, base, options)
        _one_more(ours, peers["zip"], base, options)


def _make(top: pathlib.Path, options) -> None:
    dice = random.Random(options.seed)
    for number in range(options.files):
        directory = top / f"{number // 1000:04}"
        if number % 1000 == 0:
            directory.mkdir(parents=True)
        (directory / f"f{number:06}.log").write_bytes(dice.randbytes(options.bytes))
    os.sync()


def _many(ours: str, peers: dict[str, str], base: pathlib.Path, options) -> None:
    src, pack = str(base / "src"), base / "pack"
    zipped, tarred = base / "peer.zip", base / "peer.tar"

    def empty_base() -> None:
        shutil.rmtree(pack, ignore_errors=True)
        pack.mkdir()

    tools = [
        harness.Tool("keepwatch", [ours, src, str(pack), "ar.zip"], prepare=empty_base),
        harness.Tool(
            "zip -0 -r",
            [peers["zip"], "-0", "-q", "-r", str(zipped), src],
            prepare=lambda: zipped.unlink(missing_ok=True),
        ),
        harness.Tool("tar", [peers["tar"], "-cf", str(tarred), "-C", src, "."]),
    ]
    empty_base()
    peaks_kib = {tool.name: harness.check(tool, lambda output: output.read())[1] for tool in tools}
    with zipfile.ZipFile(base / "pack" / "ar.zip") as archive:
        if len(archive.namelist()) != options.files or archive.testzip():
            raise harness.Refused("the archive is not what was packed")
        for name in random.Random(options.seed).sample(archive.namelist(), 1000):
            if archive.read(name) != (base / "src" / name).read_bytes():
                raise harness.Refused(f"{name} differs")
    harness.compare(tools, options.rounds, peaks_kib, options.json)
    print("keepwatch: staged, collected, read back, synced; zip and tar: written once, not synced")


def _one_more(ours: str, zip_program: str, base: pathlib.Path, options) -> None:
    """An archive that another program made, taken in by the first round, which warms up."""
    harness.say(f"making an archive of {options.members} members")
    large = base / "large"
    large.mkdir()
    with zipfile.ZipFile(large / "ar.zip", "w") as archive:
        for number in range(options.members):
            archive.writestr(zipfile.ZipInfo(f"d{number // 1000:04}/some-file-{number:07}.log"), b"x" * 100)
    harness.run("cp", str(large / "ar.zip"), str(base / "peer-large.zip"))
    seen: dict[str, list[float]] = {}
    for round_ in range(options.rounds + 1):
        one = base / f"one{round_}"
        one.mkdir()
        (one / f"more{round_}").write_bytes(b"one more")
        middle = f"d{options.members // 2000:04}/some-file-{options.members // 2:07}.log"
        runs = {
            "one more file": [ours, str(one), str(large), "ar.zip"],
            "zip -g": [zip_program, "-g", "-q", "-j", str(base / "peer-large.zip"), str(one / f"more{round_}")],
            "open and read one": [ours, str(one), str(large), "ar.zip", "read", middle],
        }
        for name, argv in runs.items():
            since = time.monotonic()
            subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
            if round_ > 0:
                seen.setdefault(name, []).append(time.monotonic() - since)
    wanted = {"one more file": "< 500", "zip -g": "—", "open and read one": "≤ 10"}
    for name, times in seen.items():
        harness.figure(f"{name}, of {options.members} members, ms", 1000 * statistics.median(times), wanted[name])
