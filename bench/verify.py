"""`keepwatch verify` beside sha256sum and b3sum: many small files and few large ones, caches warm."""

import json
import os
import pathlib
import random
import subprocess
import time

import harness
import service


def arguments(parser) -> None:
    service.arguments(parser)
    parser.add_argument("--files", type=int, default=100_000, help="how many files of 4 KiB (default: %(default)s)")
    parser.add_argument("--large", type=int, default=64, help="how many files of 64 MiB (default: %(default)s)")


def run(options) -> None:
    keepwatch = service.program(options)
    sha256sum = harness.peer("sha256sum", "coreutils")
    b3sum = harness.peer("b3sum", "b3sum")
    for program in (sha256sum, b3sum):
        print(f"{program}: {harness.version(program)}")
    size = options.files * 12_288 + options.large * (64 << 20) + (1 << 30)
    for what in ("small", "large"):
        with harness.place(size, options.files + 20_000, options.tmpfs) as base:
            top = base / "tree"
            harness.say(f"making the {what} files, seed {options.seed}")
            files = _small(top, options) if what == "small" else _large(top, options)
            tools, peaks_kib = [], {}
            for digest in ("sha256", "blake3"):
                config = _keep(keepwatch, base, top, digest)
                argv = [keepwatch, "verify", "--quiet", "--config", str(config)]
                tool = harness.Tool(f"keepwatch, {digest}", argv, [*argv[:2], "--json", *argv[3:]])
                sum_, peaks_kib[tool.name] = harness.check(tool, lambda output: json.loads(output.read()))
                if (sum_["verified"], sum_["files"]) != (files, files):
                    raise harness.Refused(f"{tool.name} of {files} files said {sum_}")
                tools.append(tool)
            for program in (sha256sum, b3sum):
                line = f"find {top} -type f -print0 | xargs -0 -n 256 {program}"
                tool = harness.Tool(pathlib.Path(program).name, ["sh", "-c", line])
                count, peaks_kib[tool.name] = harness.check(tool, lambda output: sum(1 for _ in output))
                if count != files:
                    raise harness.Refused(f"{tool.name} printed {count} lines for {files} files")
                tools.append(tool)
            print(f"\n{files} {what} files, all found to be what they were")
            rows = {row["tool"]: row for row in harness.compare(tools, options.rounds, peaks_kib, options.json)}
            wall = {name: row["wall_s"] for name, row in rows.items()}
            cores = len(os.sched_getaffinity(0))
            harness.figure(f"{what}: sha256sum's wall ÷ ours", wall["sha256sum"] / wall["keepwatch, sha256"], f"≥ {cores}")
            harness.figure(f"{what}: ours with blake3 ÷ b3sum's wall", wall["keepwatch, blake3"] / wall["b3sum"], "≤ 1.3")
            harness.figure(f"{what}: peak MiB", rows["keepwatch, sha256"]["peak_kib"] / 1024, "< 100")


def _small(top: pathlib.Path, options) -> int:
    rng = random.Random(options.seed)
    for number in range(options.files):
        if number % 100 == 0:
            directory = top / f"d{number // 100}"
            directory.mkdir(parents=True)
        (directory / f"f{number}").write_bytes(rng.randbytes(4096))
    return options.files


def _large(top: pathlib.Path, options) -> int:
    rng = random.Random(options.seed)
    top.mkdir()
    for number in range(options.large):
        (top / f"f{number}").write_bytes(rng.randbytes(64 << 20))
    return options.large


def _keep(keepwatch: str, base: pathlib.Path, top: pathlib.Path, digest: str) -> pathlib.Path:
    """Runs the service until every file is complete and hashed; gives the configuration."""
    config = base / f"{digest}.toml"
    config.write_text(f'state_dir = "{base}/state-{digest}"\ndigest = "{digest}"\n[roots.tree]\npath = "{top}"\n')
    process = subprocess.Popen([keepwatch, "run", "--config", str(config)], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 600
        while time.monotonic() < until:
            asked = subprocess.run(
                [keepwatch, "verify", "--json", "--config", str(config)], capture_output=True, check=False
            )
            told = json.loads(asked.stdout or b"{}") if asked.returncode == 0 else {}
            if told and told["busy"] == told["hashed"] == 0 and told["verified"] > 0:
                return config
            time.sleep(1)
        raise harness.Refused("the files did not settle")
    finally:
        process.terminate()
        process.wait()
