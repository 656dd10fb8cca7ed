"""A page taken apart: its elements, the text that is read, and the pictures in it."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image


class Page(HTMLParser):
    """A parsed page: every element with its attributes, and the text outside of scripts and styles."""

    def __init__(self, page: Path | str) -> None:
        super().__init__()
        self.source = page if isinstance(page, str) else page.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.styles: list[str] = []
        self.text = ""
        self._silent = ""
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._silent = tag if tag in ("script", "style") else ""

    def handle_endtag(self, _tag: str) -> None:
        self._silent = ""

    def handle_data(self, data: str) -> None:
        if self._silent == "style":
            self.styles.append(data)
        elif not self._silent:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def images(self, alt: str = "") -> list[np.ndarray]:
        """The decoded pictures whose alternative text begins so."""
        return [decoded(image["src"]) for image in self.all("img") if image["alt"].startswith(alt)]


def decoded(uri: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2], validate=True))) as image:
        return np.asarray(image.convert("RGB"))
