"""What is wrong with a page for somebody without a mouse, a screen or a network; an empty list for a good one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from pages import Page

_REFERS = ("src", "href", "srcset", "action", "data", "poster", "xlink:href", "formaction", "background")
_FETCHES = {"iframe", "object", "embed", "base", "form", "audio", "video", "frame", "applet"}
_ARIA = {"aria-label", "aria-labelledby", "aria-hidden", "aria-valuetext", "aria-live"}
_ROLES = {"region", "img"}
_WORDS = {"aria-hidden": {"true"}, "aria-live": {"off"}, "scope": {"col", "row"}, "tabindex": {"0"}}


def page_faults(page: Page) -> list[str]:
    """Everything that is wrong, a sentence each."""
    return [*_outside(page), *_structure(page), *_names(page), *_controls(page), *_marks(page)]


def _outside(page: Page) -> Iterator[str]:
    for tag, attributes in page.elements:
        for name in _REFERS:
            if not attributes.get(name, "#").startswith(("#", "data:")):
                yield f"{tag} refers to {attributes[name]}"
        if tag in _FETCHES or any(name.startswith("on") for name in attributes):
            yield f"{tag} may fetch or run something"
    if any(mark in style for style in page.styles for mark in ("url(", "@import")):
        yield "the style fetches something"


def _structure(page: Page) -> Iterator[str]:
    levels = [int(tag[1]) for tag, _ in page.elements if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit()]
    if levels.count(1) != 1 or levels[:1] != [1]:
        yield f"h1 is not the one first heading: {levels}"
    if any(after > before + 1 for before, after in pairwise(levels)):
        yield f"headings jump: {levels}"
    for tag in ("main", "header", "footer", "nav", "title"):
        if len(page.all(tag)) != 1:
            yield f"{len(page.all(tag))} {tag}"
    if page.all("html")[0].get("lang") != "en":
        yield "no language"
    first = page.all("a")[0]
    if first.get("href") != "#main" or page.all("main")[0].get("id") != "main":
        yield "no link past the header"
    viewport = [meta["content"] for meta in page.all("meta") if meta.get("name") == "viewport"]
    if viewport != ["width=device-width, initial-scale=1"]:
        yield f"zooming is not as it should be: {viewport}"


def _names(page: Page) -> Iterator[str]:
    """Whatever is met by itself says what it is."""
    for image in page.all("img"):
        if not image.get("alt", "").strip():
            yield "a picture says nothing"
    for svg in page.all("svg"):
        if svg.get("aria-hidden") != "true" and (svg.get("role") != "img" or not svg.get("aria-label")):
            yield "a drawing says nothing"
    for tag, attributes in page.elements:
        if attributes.get("role") == "region" and not attributes.get("aria-label"):
            yield f"a region without a name: {attributes}"
        if tag == "section" and "aria-labelledby" not in attributes:
            yield f"a section without a name: {attributes}"
        if tag in ("nav", "aside") and not attributes.get("aria-label"):
            yield f"{tag} without a name"
        if tag == "th" and "scope" not in attributes:
            yield "a heading of a table without a scope"


def _controls(page: Page) -> Iterator[str]:
    labelled = {label.get("for") for label in page.all("label")}
    for tag, attributes in page.elements:
        if tag in ("input", "progress", "select", "textarea") and attributes.get("id") not in labelled:
            yield f"{tag} {attributes.get('id')} has no label"
        if tag == "button" and (attributes.get("type") != "button" or not attributes.get("aria-label")):
            yield f"a button without type or name: {attributes}"
        if attributes.get("type") == "range" and not attributes.get("aria-valuetext"):
            yield "a slider whose value is a bare number"
        if "scroll" in attributes.get("class", "").split() and attributes.get("tabindex") != "0":
            yield "a box that only a mouse can scroll"


def _marks(page: Page) -> Iterator[str]:
    counted = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    yield from (f"id {name} is there {count} times" for name, count in counted.items() if count > 1)
    for tag, attributes in page.elements:
        for name in ("for", "aria-labelledby"):
            if name in attributes and attributes[name] not in counted:
                yield f"{tag} {name}={attributes[name]} is about nothing"
        if tag == "a" and attributes.get("href", "")[1:] not in counted:
            yield f"a link goes nowhere: {attributes}"
        for name, value in attributes.items():
            if (name.startswith("aria-") and name not in _ARIA) or (name == "role" and value not in _ROLES):
                yield f"{tag} has {name}={value}"
            if name in _WORDS and value not in _WORDS[name]:
                yield f"{tag} has {name}={value}"
