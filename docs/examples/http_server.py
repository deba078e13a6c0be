#!/usr/bin/env python3
"""Keeps what Keepwatch sends by HTTP in a directory: http_server.py DIRECTORY PORT [FILE_WITH_SECRET]"""
import base64, calendar, hashlib, hmac, http.server, io, itertools, json, os, shutil, sys, tempfile, threading, time
from urllib.parse import unquote_to_bytes
top, lock = os.path.join(os.path.realpath(os.fsencode(sys.argv[1])), b""), threading.Lock()
secret = open(sys.argv[3], "rb").readline().rstrip(b"\r\n") if len(sys.argv) > 3 else None

def place(name):
    path = top + name.lstrip(b"/")
    if os.path.realpath(os.path.dirname(path)) != os.path.dirname(path):  # by `..` or a symbolic link
        raise ValueError("the name leads elsewhere")
    return path
def aside():  # a directory for what is on its way
    return tempfile.TemporaryDirectory(prefix=b".keepwatch-new-", dir=top)
def move(path, to):  # directories come and go with what is in them; durable when it returns
    with lock:
        os.renames(path, to)
        opened = os.open(os.path.dirname(to), os.O_RDONLY)
    os.fsync(opened), os.close(opened)
def names(here, prefix, after):  # in the order of their bytes
    for name in sorted(here + one.name + b"/" * one.is_dir(follow_symlinks=False) for one in os.scandir(place(here))):
        end = len(name) if name.endswith(b"/") else None  # of a directory, only the beginning
        if name.startswith(prefix[:end]) and after[:end] <= name != after and not name.startswith(b".keepwatch-new-"):
            yield from names(name, prefix, after) if end else [name]
def item(name):
    path, exact = place(name), lambda text: base64.b64encode(text).decode()
    link = {"kind": "symlink", "target_b64": exact(os.readlink(path))} if os.path.islink(path) else {}
    return {"path_b64": exact(name), "size": os.lstat(path).st_size, "mtime_ns": os.lstat(path).st_mtime_ns, **link}

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, timeout, log_message = "HTTP/1.1", 60, lambda *_: None
    def answer(self):
        path, _, query = self.path.partition("?")
        asked = {key: unquote_to_bytes(value) for key, _, value in (part.partition("=") for part in query.split("&"))}
        try:
            secret and self.check()
            status, body = 200, getattr(self, self.command)(unquote_to_bytes(path[1:]), asked)
        except (OSError, ValueError) as error:
            known = {FileNotFoundError: 404, PermissionError: 403, ValueError: 400}
            status = known.get(type(error), 507 if getattr(error, "errno", 0) == 28 else 500)
            body = io.BytesIO(str(error).encode())
            self.close_connection = True  # the body may not have been read
        with body or io.BytesIO() as body:
            self.send_response(status), self.send_header("Content-Length", str(body.seek(0, 2))), self.end_headers()
            body.seek(0), shutil.copyfileobj(body, self.wfile)
    do_GET = do_PUT = do_POST = do_DELETE = answer
    def check(self):  # that who asks knows the secret, and asks now
        date, digest = self.headers.get("X-Keepwatch-Date", ""), self.headers.get("X-Keepwatch-SHA256", "")
        text = "\n".join(["Keepwatch-HMAC-SHA256", self.command, self.path, date, digest])
        made = "Keepwatch-HMAC-SHA256 " + hmac.digest(secret, text.encode(), "sha256").hex()
        if not hmac.compare_digest(made.encode(), self.headers.get("Authorization", "").encode()):
            raise PermissionError("the signature is wrong")
        if abs(time.time() - calendar.timegm(time.strptime(date[:19], "%Y-%m-%dT%H:%M:%S"))) > 300:
            raise PermissionError("the date is more than five minutes off")
    def GET(self, name, asked):
        if "list" not in asked:
            path = place(name)
            return io.BytesIO(os.readlink(path)) if os.path.islink(path) else open(path, "rb")
        prefix, limit = asked["prefix"], int(asked["limit"])
        with lock:
            slashes = prefix[:len(prefix) - len(prefix.lstrip(b"/"))]
            found = list(itertools.islice(names(slashes, prefix, asked.get("after", b"")), limit + 1))
            page = {"items": [item(name) for name in found[:limit]], "more": len(found) > limit,
                    "abilities": ["rename"], "checks": "sha256", "mtime_step_ns": 1}
        return io.BytesIO(json.dumps(page).encode())
    def PUT(self, name, asked):  # whole or not at all: aside, then in place
        left, digest = int(self.headers["Content-Length"]), hashlib.sha256()
        with aside() as directory, open(os.path.join(directory, b"new"), "xb+") as file:
            while chunk := self.rfile.read(min(left, 1 << 20)):
                file.write(chunk), digest.update(chunk)
                left -= len(chunk)
            if left or digest.hexdigest() != self.headers["X-Keepwatch-SHA256"]:
                raise ValueError("the content is not that of the digest")
            file.flush(), os.fsync(file)
            if asked["kind"] == b"symlink":
                file.seek(0), os.unlink(file.name), os.symlink(file.read(), file.name)
            os.utime(file.name, ns=(int(asked["mtime_ns"]),) * 2, follow_symlinks=False)
            move(file.name, place(name))
    def POST(self, name, asked):
        move(place(name), place(asked["rename"]))
    def DELETE(self, name, asked):
        with aside() as directory:
            move(place(name), os.path.join(directory, b"old"))

os.makedirs(top, exist_ok=True)
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
print(f"http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()
