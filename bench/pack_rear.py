"""`rear` (PyPI) as it is used: one worker that writes every file of a tree into an archive, then one scavenge.

pack_rear.py DIR BASE ARCHIVE.zip
"""

import builtins
import os
import pathlib
import sys

import rear
import rear.scavenger
import trio


async def work(tree: pathlib.Path, base: str, archive: str) -> None:
    async with rear.rear_fs(base):
        for top, _, names in os.walk(tree):
            for name in names:
                path = pathlib.Path(top, name)
                with builtins.rear_open(f"{archive}/{path.relative_to(tree)}", "w+b") as file:
                    file.write(path.read_bytes())


tree, base, archive = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
trio.run(work, tree, base, archive)
rear.scavenger.try_scan_once(base, flush=True)
