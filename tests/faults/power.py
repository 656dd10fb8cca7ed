"""A disk that forgets at a power cut what was not flushed.

The folder is a real one; what would be left of it is kept beside. A file's content is on the disk when the file has
been flushed, a folder's entries when the folder has. A disk may also have written more than it was asked to: names
without the contents, or any part of either.
"""

from __future__ import annotations

import os
import random
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from disks import Call

CUTS = ("only what was flushed", "names before contents", "anything in between")


class Killed(BaseException):
    """The process is gone: nothing may catch it."""


@dataclass(eq=False)
class Node:
    """A file or folder, whatever its names. ``entries``: those of a folder after each change since it was flushed."""

    flushed: bytes = b""
    live: bytes = b""
    entries: list[dict[str, Node]] = field(default_factory=list)


class Disk:
    """Stands in front of the operations on ``root``; ``cut`` says what a power cut would leave right now."""

    def __init__(self, root: Path) -> None:
        self.root, self.nodes, self.dead = root, {}, False
        self.top = self._adopt(root)

    def _adopt(self, path: Path) -> Node:
        """What is there at the beginning is on the disk."""
        node = self.nodes[path.lstat().st_ino] = Node()
        if path.is_dir():
            node.entries = [{entry.name: self._adopt(entry) for entry in path.iterdir()}]
        else:
            node.flushed = node.live = path.read_bytes()
        return node

    def act(self, call: Call) -> Any:
        if self.dead:
            raise OSError("nobody is there any more")
        paths = [each for each in call.arguments if isinstance(each, Path)]
        new = [path for path in paths if not os.path.lexists(path)]
        result = call.perform()
        if call.name == "write":
            self._node(call.arguments[0]).live = _content(call.arguments[0])
        elif call.name == "fsync":
            self._flush(call.arguments[0])
        elif call.name in ("create", "append", "open_lock", "mkdir"):
            for path in new:  # inodes are used again
                self.nodes[path.lstat().st_ino] = Node(entries=[{}] if call.name == "mkdir" else [])
        for folder in {path.parent for path in paths}:
            self._changed(folder)
        return result

    def die(self) -> None:
        self.dead = True
        raise Killed

    def _node(self, descriptor: int) -> Node:
        return self.nodes[os.fstat(descriptor).st_ino]

    def _flush(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        node = self.nodes.get(status.st_ino)
        if node is None:
            return  # above the root
        if stat.S_ISDIR(status.st_mode):
            node.entries = node.entries[-1:]
        else:
            node.flushed = node.live = _content(descriptor)

    def _changed(self, folder: Path) -> None:
        node = self.nodes.get(folder.lstat().st_ino) if folder.is_dir() else None
        if node is not None:
            now = {entry.name: self.nodes[entry.inode()] for entry in os.scandir(folder)}
            if now != node.entries[-1]:
                node.entries.append(now)

    def cut(self, how: str, chance: random.Random) -> dict[str, bytes]:
        """The files that are left, by name."""
        left: dict[str, bytes] = {}
        _walk(self.top, "", how, chance, left)
        return left


def _walk(node: Node, name: str, how: str, chance: random.Random, left: dict[str, bytes]) -> None:
    if not node.entries:
        left[name] = node.flushed if how != CUTS[2] else _torn(node, chance)
        return
    number = {CUTS[0]: 0, CUTS[1]: len(node.entries) - 1, CUTS[2]: chance.randrange(len(node.entries))}[how]
    for entry, inside in sorted(node.entries[number].items()):
        _walk(inside, f"{name}/{entry}" if name else entry, how, chance, left)


def _torn(node: Node, chance: random.Random) -> bytes:
    more = node.live[len(node.flushed) :]
    return node.flushed + more[: chance.randint(0, len(more))]


def _content(descriptor: int) -> bytes:
    return Path(f"/proc/self/fd/{descriptor}").read_bytes()
