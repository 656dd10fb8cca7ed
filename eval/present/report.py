"""A folder of results as one HTML page that needs nothing but itself, and as a Markdown table."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image, UnidentifiedImageError

from frame.eval.present.compare import Comparison, Entry, as_markdown, figure, group, load, markdown, title
from frame.eval.present.published import Published, published_for
from frame.eval.result import RESULT
from frame.manifests.errors import InputError
from frame.model.files import replacing

PAGE, TABLE = "report.html", "report.md"
PICTURES_A_RESULT = 8
_WIDEST = 1600  # pixels of a picture on the page
_ITEMS = 100  # rows of a table of items
_PUBLISHED = (
    "Published, full scale. Other data, other training, and protocols that are only partly known: not ranked here."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A picture on the page: whose it is, its file's name, its data URI."""

    entry: str
    name: str
    uri: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One comparison on the page. ``items`` [rows][1 + encoders]: a name and each encoder's value of ``item_score``;
    ``bars``: the part of the longest bar that each entry's headline takes, empty where a bar would say nothing;
    ``notes``: whose, and what, nobody's where it holds for all."""

    comparison: Comparison
    title: str
    facts: tuple[tuple[str, str], ...]
    item_score: str
    items: tuple[tuple[str, ...], ...]
    items_left: int
    bars: tuple[float, ...]
    notes: tuple[tuple[str, str], ...]
    pictures: tuple[Shown, ...]
    published: tuple[Published, ...]
    published_scores: tuple[str, ...]


def write_report(folder: Path, out: Path) -> tuple[Path, Path, list[str]]:
    """All results below ``folder`` to ``out/report.html`` and ``out/report.md``.

    Results stand in one table only where they measured the same thing. Returns both paths, and a sentence for each
    file and picture that could not be read, which the page says, too. Raises InputError where there is no result.
    """
    entries, lost = _find(folder)
    sections = []
    for comparison in group(entries):
        pictures, missing = _pictures(comparison.entries, folder)
        lost += missing
        sections.append(_section(comparison, pictures))
    page = _environment().get_template("page.jinja").render(
        title=f"Evaluation: {folder.resolve().name}", sections=sections, lost=lost, published_note=_PUBLISHED,
        random=[entry.name for entry in entries if entry.random], count=len(entries), style=_style(),
    )  # fmt: skip
    return _write(out / PAGE, page), _write(out / TABLE, _markdown(sections, lost)), lost


def _find(folder: Path) -> tuple[list[Entry], list[str]]:
    paths = sorted(folder.rglob(RESULT)) if folder.is_dir() else []
    good, lost = [], []
    for path in paths:
        try:
            load([path])
            good.append(path.parent)
        except InputError as error:
            lost.append(f"{path.relative_to(folder)}: {error.what} {error.why}".strip())
    if not good:
        raise InputError(
            what="There is no result to report.", where=str(folder),
            why="; ".join(lost) or f"no {RESULT} in it", fix="give the folder that the --out folders lie in",
        )  # fmt: skip
    return load(good), lost


def _section(comparison: Comparison, pictures: Sequence[Shown]) -> Section:
    first = comparison.first
    score, items = _items(comparison)
    published = published_for(first.task)
    names = dict.fromkeys(name for row in published for name in row.scores)
    numbers = [(name, value) for name, value in first.data.items() if name not in ("root", "digest")]
    options = [f"{name} {value}" for name, value in first.options.items()]
    return Section(
        comparison=comparison,
        title=title(comparison),
        facts=(
            ("data", str(first.data.get("root", ""))),
            ("digest", str(first.data.get("digest", ""))[:16]),
            *((name, str(value)) for name, value in numbers),
            ("options", ", ".join(options) or "none"),
        ),
        item_score=score,
        items=tuple(items[:_ITEMS]),
        items_left=max(len(items) - _ITEMS, 0),
        bars=_bars(comparison),
        notes=tuple(_notes(comparison)),
        pictures=tuple(pictures),
        published=tuple(published),
        published_scores=tuple(names),
    )


def _notes(comparison: Comparison) -> list[tuple[str, str]]:
    whose: dict[str, list[str]] = {}
    for entry in comparison.entries:
        for note in entry.result.notes:
            whose.setdefault(note, []).append(entry.name)
    everybody = len(comparison.entries)
    return [("" if len(names) == everybody else ", ".join(names), note) for note, names in whose.items()]


def _items(comparison: Comparison) -> tuple[str, list[tuple[str, ...]]]:
    """The first score that items have, and its value for each item and encoder; deltas show every column."""
    if comparison.first.task == "deltas":
        return "", []
    known = {name for entry in comparison.entries for item in entry.result.items for name in item}
    score = next((name for name in comparison.scores if name in known), "")
    table: dict[str, dict[int, object]] = {}
    for number, entry in enumerate(comparison.entries):
        for item in entry.result.items:
            if score and score in item:
                table.setdefault(str(item.get("name", "")), {})[number] = item[score]
    numbers = range(len(comparison.entries))
    return score, [(name, *(figure(values.get(n)) for n in numbers)) for name, values in table.items()]


def _bars(comparison: Comparison) -> tuple[float, ...]:
    if not comparison.scores or comparison.first.task == "deltas":
        return ()
    values = [entry.result.scores.get(comparison.scores[0], float("nan")) for entry in comparison.entries]
    return tuple(values) if all(0 <= value <= 1 for value in values) else ()


def _pictures(entries: Sequence[Entry], root: Path) -> tuple[list[Shown], list[str]]:
    shown, lost = [], []
    for entry in entries:
        names, where = [str(name) for name in entry.result.pictures], entry.folder.relative_to(root)
        for name in names[:PICTURES_A_RESULT]:
            uri = _uri(entry.folder, name)
            if uri:
                shown.append(Shown(entry=entry.name, name=Path(name).stem, uri=uri))
            else:
                lost.append(f"{where}: its picture {name} cannot be shown.")
        if len(names) > PICTURES_A_RESULT:
            lost.append(f"{where}: {len(names) - PICTURES_A_RESULT} more pictures are in its folder.")
    order = list(dict.fromkeys(picture.name for picture in shown))
    return sorted(shown, key=lambda picture: order.index(picture.name)), lost  # one scene of all encoders together


def _uri(folder: Path, name: str) -> str:
    """A picture below ``folder`` as a data URI; empty for one that is elsewhere, or no picture."""
    try:
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            return ""
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        if picture.width > _WIDEST:
            height = max(round(picture.height * _WIDEST / picture.width), 1)
            picture = picture.resize((_WIDEST, height), Image.Resampling.LANCZOS)
        data = io.BytesIO()
        picture.save(data, "WEBP", quality=82, method=4)
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
        return ""
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def _markdown(sections: Sequence[Section], lost: Sequence[str]) -> str:
    parts = ["# Evaluation\n"]
    for section in sections:
        parts += [f"## {markdown(section.title)}\n", _listed(section.facts), as_markdown(section.comparison)]
        told = (f"{name}: {note}" if name else note for name, note in section.notes)
        parts.append("".join(f"- {markdown(line)}\n" for line in told))
        if section.published:
            parts += [
                f"### {markdown(section.comparison.first.task)}, published\n",
                f"{_PUBLISHED}\n",
                _beside(section),
            ]
    if lost:
        parts += ["## Not shown\n", "".join(f"- {markdown(line)}\n" for line in lost)]
    return "\n".join(parts)


def _listed(facts: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{markdown(name)}: {markdown(value)}" for name, value in facts) + "\n"


def _beside(section: Section) -> str:
    head = ["model", *section.published_scores, "protocol", "source"]
    lines = [
        [row.model, *(printed(row.scores.get(name)) for name in section.published_scores), row.protocol, row.source]
        for row in section.published
    ]
    rule = ["---", *("---:" for _ in section.published_scores), "---", "---"]
    cells = [[markdown(cell) for cell in line] for line in (head, *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (cells[0], rule, *cells[1:])) + "\n"


def printed(value: float | None) -> str:
    """A published score, with as many decimals as papers print."""
    return "–" if value is None else f"{value:.3f}"


def _style() -> Markup:
    """The look of the cache's report, and what this page adds to it."""
    house = (files("frame.pipeline.view") / "page.css").read_text(encoding="utf-8")
    return Markup(house + (files("frame.eval.present") / "page.css").read_text(encoding="utf-8"))


def _environment() -> Environment:
    """Everything that is put into the page is escaped."""
    environment = Environment(
        loader=PackageLoader("frame.eval.present", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"figure": figure, "printed": printed}
    return environment


def _write(path: Path, text: str) -> Path:
    with replacing(path) as partial:
        partial.write_bytes(text.encode("utf-8", "backslashreplace"))  # a path's name may hold bytes that are no text
    return path
