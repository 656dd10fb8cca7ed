"""A folder of results as one HTML page that needs nothing but itself, and as a Markdown table."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from PIL import Image, UnidentifiedImageError

from frame.eval.present.compare import as_markdown, markdown
from frame.eval.present.legends import legend
from frame.eval.present.published import Published, published_for
from frame.model.files import replacing
from frame.pipeline.view.compare import Comparison, Entry, find, group
from frame.pipeline.view.evaluation import ScoreTable, random_names, score_table
from frame.pipeline.view.template import environment, house_style

_HERE = Path(__file__).parent
PAGE, TABLE = "report.html", "report.md"
PICTURES_A_RESULT = 8
_WIDEST = 1600  # pixels of a picture on the page
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
    """One comparison on the page: its tables, its pictures, and what papers print."""

    shown: ScoreTable
    pictures: tuple[Shown, ...]
    legend: str
    published: tuple[Published, ...]
    published_scores: tuple[str, ...]


def write_report(folder: Path, out: Path) -> tuple[Path, Path, list[str]]:
    """All results below ``folder`` to ``out/report.html`` and ``out/report.md``.

    Results stand in one table only where they measured the same thing. Returns both paths, and a sentence for each
    file and picture that could not be read, which the page says, too. Raises InputError where there is no result.
    """
    entries, lost = find(folder)
    sections = []
    for comparison in group(entries):
        pictures, missing = _pictures(comparison.entries, folder)
        lost += missing
        sections.append(_section(comparison, pictures))
    page = environment(_HERE, printed=printed).get_template("report.jinja").render(
        title=f"Evaluation: {folder.resolve().name}", sections=sections, lost=lost, published_note=_PUBLISHED,
        random=random_names(entries), count=len(entries), style=_style(),
    )  # fmt: skip
    return _write(out / PAGE, page), _write(out / TABLE, _markdown(sections, lost)), lost


def _section(comparison: Comparison, pictures: Sequence[Shown]) -> Section:
    found = published_for(comparison.first.task)
    return Section(
        shown=score_table(comparison),
        pictures=tuple(pictures),
        legend=legend(comparison.first.task),
        published=tuple(found),
        published_scores=tuple(dict.fromkeys(name for row in found for name in row.scores)),
    )


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
        shown = section.shown
        parts += [f"## {markdown(shown.title)}\n", _listed(shown.facts), as_markdown(shown.comparison)]
        told = (f"{name}: {note}" if name else note for name, note in shown.notes)
        parts.append("".join(f"- {markdown(line)}\n" for line in told))
        if section.published:
            parts += [
                f"### {markdown(shown.comparison.first.task)}, published\n",
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
    return house_style() + Markup((_HERE / "page.css").read_text(encoding="utf-8"))


def _write(path: Path, text: str) -> Path:
    with replacing(path) as partial:
        partial.write_bytes(text.encode("utf-8", "backslashreplace"))  # a path's name may hold bytes that are no text
    return path
