"""What was found out about the last source: a long one taken in many parts is read through once, not each time."""

from __future__ import annotations

from pathlib import Path

from frame.pipeline.decode.folder import Folder, folder_identity, scan_folder
from frame.pipeline.decode.limits import Limits
from frame.pipeline.decode.scan import Scan, scan
from frame.pipeline.decode.source import Source


class Known:
    """Remembers one source, and forgets it as soon as its size, its inode or a time of change is another."""

    def __init__(self) -> None:
        self._identity: tuple[object, ...] = ()
        self._sha256: str | None = None
        self._scan: Scan | None = None
        self._folder: Folder | None = None

    def sha256(self, source: Source) -> str:
        """See `Source.sha256`."""
        self._turn_to(source.identity)
        self._sha256 = self._sha256 or source.sha256()
        return self._sha256

    def scan(self, source: Source, limits: Limits) -> Scan:
        """See `frame.pipeline.decode.scan.scan`."""
        self._turn_to(source.identity)
        self._scan = self._scan or scan(source, limits)
        return self._scan

    def folder(self, path: Path, limits: Limits) -> Folder:
        """See `frame.pipeline.decode.folder.scan_folder`."""
        self._turn_to(folder_identity(path))
        self._folder = self._folder or scan_folder(path, limits)
        return self._folder

    def _turn_to(self, identity: tuple[object, ...]) -> None:
        if identity != self._identity:
            self._identity, self._sha256, self._scan, self._folder = identity, None, None, None
