#!/usr/bin/env python3
"""Keeps copies in a directory: keepwatch mirror SRC 'exec:docs/examples/plugin.py DIRECTORY'."""
import base64, contextlib, hashlib, itertools, json, os, shutil, sys

def name(m, key="path"):  # names are bytes: what is not UTF-8 comes in base64 as well
    return base64.b64decode(m[key + "_b64"]) if key + "_b64" in m else m[key].encode()
def place(path): return os.path.join(os.fsencode(sys.argv[1]), *path.lstrip(b"/").split(b"/"))
def names(prefix, here):  # in the order of their bytes
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(here + one.name + b"/" * one.is_dir(follow_symlinks=False) for one in os.scandir(place(here))):
            end = len(path) if path.endswith(b"/") else None  # of a directory, only the beginning
            if path.startswith(prefix[:end]):
                yield from names(prefix, path) if end else [path]
def sync(path): os.fsync(opened := os.open(path, os.O_RDONLY)), os.close(opened)
def move(path, to): os.renames(path, to), sync(os.path.dirname(to))  # directories come and go with what is in them
def say(m, **what): print(json.dumps({"id": m["id"], **what}), flush=True)

def answer(m):
    if m["do"] == "hello":
        return {"version": 1, "abilities": ["list", "upload", "read", "delete", "rename", "symlinks"],
                "sorted": True, "mtime_step_ns": 1, "checks": "sha256"}
    if m["do"] == "list":
        prefix, exact = name(m, "prefix"), lambda path: base64.b64encode(path).decode()
        for path in itertools.islice(names(prefix, prefix[:len(prefix) - len(prefix.lstrip(b"/"))]), m.get("limit")):
            kept, stat = place(path), os.lstat(place(path))
            link = {"kind": "symlink", "target_b64": exact(os.readlink(kept))} if os.path.islink(kept) else {}
            say(m, item={"path_b64": exact(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, **link})
        return
    path, new = place(name(m)), place(b".keepwatch-tmp/new")
    if m["do"] == "upload":  # whole or not at all: beside, then in place
        os.makedirs(os.path.dirname(new), exist_ok=True), os.path.lexists(new) and os.unlink(new)
        os.symlink(name(m, "target"), new) if m["kind"] == "symlink" else (shutil.copyfile(m["file"], new), sync(new))
        os.utime(new, ns=(m["mtime_ns"], m["mtime_ns"]), follow_symlinks=False)
        move(new, path)
        return {"sha256": hashlib.sha256(open(path, "rb").read()).hexdigest()} if m["kind"] == "file" else {}
    if m["do"] == "read":
        shutil.copyfile(path, m["file"])
    else:
        move(path, place(name(m, "to")) if m["do"] == "rename" else new)

for m in filter(lambda m: "do" in m, map(json.loads, sys.stdin)):  # the rest needs no answer
    try:
        say(m, ok=True, **(answer(m) or {}))
    except OSError as error:
        say(m, error="missing" if isinstance(error, FileNotFoundError) else "failed", message=str(error))
