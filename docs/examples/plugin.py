#!/usr/bin/env python3
"""Keeps copies in a directory: keepwatch mirror SRC 'exec:docs/examples/plugin.py DIRECTORY'."""
import base64, hashlib, itertools, json, os, shutil, sys

def name(m, key="path"):  # names are bytes: what is not UTF-8 comes in base64 as well
    return base64.b64decode(m[key + "_b64"]) if key + "_b64" in m else m[key].encode()

def place(path): return os.path.join(os.fsencode(sys.argv[1]), *path.lstrip(b"/").split(b"/"))

def walk(prefix, below=b""):  # what begins with the prefix, in the order of bytes; a directory's path ends with a slash
    found = ((e.name + b"/" * e.is_dir(follow_symlinks=False), e) for e in os.scandir(place(below)))
    for path, entry in ((below + key, entry) for key, entry in sorted(found, key=lambda e: e[0])):
        if path.endswith(b"/") and (path.startswith(prefix) or prefix.startswith(path)):
            yield from walk(prefix, path)
        elif path.startswith(prefix) and not path.endswith(b"/"):
            yield path, entry

def answer(m):
    if m["do"] == "hello":
        return {"version": 1, "abilities": ["list", "upload", "read", "delete", "rename", "symlinks"],
                "sorted": True, "mtime_step_ns": 1, "checks": "sha256"}
    if m["do"] == "list":
        prefix, exact = name(m, "prefix"), lambda path: base64.b64encode(path).decode()
        for path, entry in itertools.islice(walk(prefix.lstrip(b"/")), m.get("limit")):
            path, stat = prefix[:len(prefix) - len(prefix.lstrip(b"/"))] + path, entry.stat(follow_symlinks=False)
            link = {"kind": "symlink", "target_b64": exact(os.readlink(entry.path))} if entry.is_symlink() else {}
            say(m, item={"path_b64": exact(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, **link})
        return
    path, new = place(name(m, "to" if m["do"] == "rename" else "path")), place(b".keepwatch-tmp/new")
    [os.makedirs(os.path.dirname(needed), exist_ok=True) for needed in (path, new)]
    if m["do"] == "upload":  # whole or not at all: beside, then in place
        os.path.lexists(new) and os.unlink(new)
        os.symlink(name(m, "target"), new) if m["kind"] == "symlink" else shutil.copyfile(m["file"], new)
        os.utime(new, ns=(m["mtime_ns"], m["mtime_ns"]), follow_symlinks=False)
        os.replace(new, path)
        return {"sha256": hashlib.sha256(open(path, "rb").read()).hexdigest()} if m["kind"] == "file" else {}
    if m["do"] == "rename":
        os.rename(place(name(m)), path)
    else:
        os.unlink(path) if m["do"] == "delete" else shutil.copyfile(path, m["file"])

def say(m, **what): print(json.dumps({"id": m["id"], **what}), flush=True)

for m in filter(lambda m: "do" in m, map(json.loads, sys.stdin)):  # the rest needs no answer
    try:
        say(m, ok=True, **(answer(m) or {}))
    except OSError as error:
        say(m, error="missing" if isinstance(error, FileNotFoundError) else "failed", message=str(error))
