"""The model hub's protocol on the loopback, as much of it as the real client speaks when a cache is pushed and pulled:
so that what ``fake_hub`` stands for is asked of the client itself.

Run as a script it serves one dataset repository, pushes the cache it is given twice, pulls it, and prints both outcomes
as JSON. It runs in a process of its own, because the client reads the hub's address when it is imported.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import tempfile
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

NAME, FIRST = "lab/mine", "0" * 40
API, RESOLVE = f"/api/datasets/{NAME}", f"/datasets/{NAME}/resolve/"
LFS_BYTES = 600
TOKEN = "hf_nobodyshouldeverreadthis"

commits: dict[str, dict[str, bytes]] = {}
objects: dict[str, bytes] = {}
state: dict[str, Any] = {"head": FIRST, "visibility": None, "seen": []}


class Hub(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - the server's own names

    def _answer(self) -> None:
        where = urllib.parse.urlsplit(self.path)
        path, body = urllib.parse.unquote(where.path), self._body()
        state["seen"].append(f"{self.command} {path}")
        if path.startswith("/upload/"):
            objects[path.rpartition("/")[2]] = body
            return self._say(b"")
        if not path.startswith(("/datasets/", API, "/api/repos/", "/api/validate-yaml")):
            return self._json({}, 404)  # what the client asks of its own accord
        assert self.headers["Authorization"] == f"Bearer {TOKEN}", self.path
        if path == "/api/repos/create":
            state["visibility"] = json.loads(body)["visibility"]
            commits[FIRST] = {".gitattributes": b"*.parquet filter=lfs\n"}
            return self._json({"url": f"{os.environ['HF_ENDPOINT']}/datasets/{NAME}"})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if not commits:
            return self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        if path.startswith(RESOLVE):
            commit, _, name = path.removeprefix(RESOLVE).partition("/")
            return self._file(commit, commits[commit][name])
        if path == f"/datasets/{NAME}.git/info/lfs/objects/batch":
            return self._json({"transfer": "basic", "objects": [_upload(item) for item in json.loads(body)["objects"]]})
        assert path.startswith(API), path
        return self._repository(path.removeprefix(API), body)

    def _repository(self, rest: str, body: bytes) -> None:
        _, method, revision = (f"{rest}//").split("/")[:3]
        if method in ("", "revision"):
            found = {"id": NAME, "sha": state["head"], "private": state["visibility"] == "private", "tags": []}
            return self._json({**found, "downloads": 0, "likes": 0, "disabled": False, "gated": False})
        if method == "tree":
            return self._json([_described(name, data) for name, data in commits[revision].items()])
        if method == "paths-info":
            names, files = urllib.parse.parse_qs(body.decode())["paths"], commits[revision]
            return self._json([_described(name, files[name]) for name in names if name in files])
        if method == "preupload":
            return self._json({"files": [_mode(item) for item in json.loads(body)["files"]]})
        assert method == "commit"
        return self._commit([json.loads(line) for line in body.splitlines()])

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        files = dict(commits[state["head"]])
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                assert value["parentCommit"] == state["head"]
            elif line["key"] == "lfsFile":
                files[value["path"]] = objects[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        state["head"] = hashlib.sha1(str(len(commits)).encode()).hexdigest()
        commits[state["head"]] = files
        url = f"{os.environ['HF_ENDPOINT']}/datasets/{NAME}/commit/{state['head']}"
        self._json({"success": True, "commitOid": state["head"], "commitUrl": url})

    def _file(self, commit: str, data: bytes) -> None:
        self._say(data, headers={"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": commit})

    def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._say(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _say(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)


def _described(name: str, data: bytes) -> dict[str, Any]:
    found = {"type": "file", "path": name, "size": len(data)}
    if len(data) <= LFS_BYTES:
        return {**found, "oid": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}
    lfs = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return {**found, "oid": "1" * 40, "lfs": lfs}


def _mode(item: dict[str, Any]) -> dict[str, Any]:
    mode = "lfs" if item["size"] > LFS_BYTES else "regular"
    return {"path": item["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}


def _upload(item: dict[str, Any]) -> dict[str, Any]:
    if item["oid"] in objects:
        return item
    return {**item, "actions": {"upload": {"href": f"{os.environ['HF_ENDPOINT']}/upload/{item['oid']}"}}}


def _main(cache: Path, back: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ |= {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",  # its own protocol is compiled code, and ends in the same commit
        "NO_PROXY": "127.0.0.1",
    }
    with tempfile.TemporaryDirectory() as home:
        os.environ["HF_HOME"] = home
        from share_places import bring, send

        url = f"hf://datasets/{NAME}"
        facts = [send(cache, url), send(cache, url), bring(url, back)]
    outcome = [{key: getattr(item, key) for key in type(item).__slots__} for item in facts]
    print(json.dumps({"outcome": outcome, "visibility": state["visibility"], "seen": state["seen"]}))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
