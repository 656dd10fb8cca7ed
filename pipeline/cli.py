"""``frame-cache``: parse, call one function, print. Exit codes: 0 done, 1 failed, 2 wrong use, 3 done, but more clips
failed than ``--max-failures`` allows, 130 interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from frame.manifests.command import run_command

if TYPE_CHECKING:
    from frame.pipeline.store.objects import StorePath

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Compute the features of frozen image teachers on videos once, into a verified, shareable cache.",
)

CachePath = Annotated[
    str, typer.Argument(metavar="CACHE", help="Folder of the cache, or s3://BUCKET/NAME.", show_default=False)
]
Dataset = Annotated[str | None, typer.Option(help="Name of the data set's layout (see `frame-cache datasets`).")]
Source = Annotated[Path | None, typer.Option(help="Folder (or CSV file) with the videos.")]
Out = Annotated[str | None, typer.Option(help="Folder of the cache to make, or s3://BUCKET/NAME.")]
Teachers = Annotated[
    str | None,
    typer.Option(
        help="Comma-separated: dino_vits16, clip_vitb32, timm:MODEL, open_clip:MODEL/TAG, ALIAS=SPEC; "
        "student=RUN for the trained student of a run folder."
    ),
]
Weights = Annotated[
    list[str] | None, typer.Option(help="NAME=FILE, NAME=random or random; may be repeated. Default: the hub.")
]
Size = Annotated[int, typer.Option(help="Side of the frames in pixels.")]
FitOption = Annotated[Literal["crop", "squash"], typer.Option(help="Short side and centre crop, or both sides.")]
Fps = Annotated[str, typer.Option(help="`native`, or frames a second.")]
FramesPerClip = Annotated[
    int | None, typer.Option(help="At most so many consecutive frames, from the middle of a clip.")
]
StoreOption = Annotated[Literal["zarr", "webdataset"], typer.Option(help="File format of the cache.")]
EncodingOption = Annotated[
    str,
    typer.Option(
        help="How features are stored: float16; int8; residual[:STEP], a quarter of float16, in steps of so many "
        "standard deviations (0.11); auto:COSINE, the smallest of these that keeps this mean cosine (0.9995)."
    ),
]
Decoder = Annotated[Literal["decord", "pyav", "torchcodec"], typer.Option(help="Video decoder.")]
PrecisionOption = Annotated[
    Literal["float32", "float16", "bfloat16"],
    typer.Option(help="Of the teachers' arithmetic. Below float32 is faster on a GPU and no longer exact to 0.99999."),
]
Seed = Annotated[int, typer.Option(help="Of the train/validation split and of --per-class.")]
PerClass = Annotated[int | None, typer.Option(help="Take so many clips of each class.")]
Limit = Annotated[int | None, typer.Option(help="Take the first so many clips.")]
UnitRows = Annotated[int | None, typer.Option(help="Frames a unit. Default: some 128 MB.")]
BatchRows = Annotated[int, typer.Option(help="Frames a batch of the teachers.")]
Json = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON on standard output.")]


def _options(values: dict[str, Any]) -> Any:
    """BuildOptions out of the options of ``plan`` and ``build``."""
    from frame.pipeline.options import BuildOptions

    for name in ("dataset", "source", "teachers"):
        if values[name] is None:
            raise typer.BadParameter("missing", param_hint=f"--{name}")
    values = {**values, "fps": _fps(values["fps"])}
    values["teachers"], values["weights"] = _teachers(values["teachers"], values["weights"])
    return BuildOptions(**values)


def _teachers(teachers: str | None, weights: list[str] | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """``--teachers`` and ``--weights``, with the run folders of students taken apart."""
    from frame.pipeline.teachers.student import expand_students

    return expand_students(_names(teachers or ""), weights or ())


def _place(text: str) -> StorePath:
    """Where a cache lies, from what was typed."""
    from frame.pipeline.store.objects import store_path  # it takes a second to import, and --help needs it not

    return store_path(text)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _fps(text: str) -> float | None:
    if text == "native":
        return None
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither `native` nor a number", param_hint="--fps") from None


@app.command()
def plan(
    dataset: Dataset = None,
    source: Source = None,
    out: Out = None,
    teachers: Teachers = None,
    weights: Weights = None,
    size: Size = 224,
    fit: FitOption = "crop",
    fps: Fps = "native",
    frames_per_clip: FramesPerClip = None,
    store: StoreOption = "zarr",
    encoding: EncodingOption = "float16",
    decoder: Decoder = "decord",
    precision: PrecisionOption = "float32",
    seed: Seed = 0,
    per_class: PerClass = None,
    limit: Limit = None,
    unit_rows: UnitRows = None,
    batch_rows: BatchRows = 32,
    as_json: Json = False,
) -> None:
    """Say what a build will cost: clips, frames, units, bytes a column, and time at a rate measured here."""
    values = {key: value for key, value in locals().items() if key not in ("out", "as_json")}
    from frame.pipeline.commands import plan_command

    plan_command(_options(values), out=_place(out or "."), as_json=as_json)


@app.command()
def build(
    context: typer.Context,
    cache: Annotated[
        str | None, typer.Argument(metavar="[CACHE]", help="An existing cache to resume, repair or extend.")
    ] = None,
    dataset: Dataset = None,
    source: Source = None,
    out: Out = None,
    teachers: Teachers = None,
    weights: Weights = None,
    size: Size = 224,
    fit: FitOption = "crop",
    fps: Fps = "native",
    frames_per_clip: FramesPerClip = None,
    store: StoreOption = "zarr",
    encoding: EncodingOption = "float16",
    decoder: Decoder = "decord",
    precision: PrecisionOption = "float32",
    seed: Seed = 0,
    per_class: PerClass = None,
    limit: Limit = None,
    unit_rows: UnitRows = None,
    batch_rows: BatchRows = 32,
    units: Annotated[str | None, typer.Option(help="I/N: only the I-th of N shares, for batch arrays.")] = None,
    address: Annotated[str | None, typer.Option(help="Join the running Ray cluster at this address.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Teacher workers. Default: one a GPU, else one a core.")
    ] = None,
    check: Annotated[
        Literal["full", "size"],
        typer.Option(help="How finished units are checked before going on."),
    ] = "full",
    max_failures: Annotated[
        float, typer.Option(min=0, max=1, help="Share of clips that may fail before the exit code is 3.")
    ] = 0.05,
    as_json: Json = False,
) -> None:
    """Build a cache, or go on with CACHE: resume it, repair it, or add `--teachers` to it."""
    run_keys = ("context", "cache", "out", "units", "address", "workers", "check", "max_failures", "as_json")
    values = {key: value for key, value in locals().items() if key not in (*run_keys, "run_keys")}
    from frame.pipeline.commands import build_command
    from frame.pipeline.options import RunOptions, parse_share

    target = cache or out
    if not target or (cache is not None and out is not None):
        raise typer.BadParameter("give either --out (a new cache) or CACHE (an existing one)", param_hint="--out")
    run = RunOptions(
        units=parse_share(units),
        address=address,
        workers=workers,
        max_failures=max_failures,
        deep_check=check == "full",
    )
    if cache is not None:
        _refuse_plan_options(context)
    fresh = _options(values) if out is not None else None
    more, files = ((), ()) if fresh is not None else _teachers(teachers, weights)
    code = build_command(
        cache=_place(target),
        fresh=fresh,
        source=source,
        weights=files,
        more_teachers=more,
        run=run,
        as_json=as_json,
    )
    raise typer.Exit(code)


def _refuse_plan_options(context: typer.Context) -> None:
    """With CACHE, the plan is the cache's own: an option that would change it must not be silently ignored."""
    chosen_rows = ("dataset", "fps", "frames_per_clip", "seed", "per_class", "limit")
    content = ("size", "fit", "store", "encoding", "decoder", "precision", "unit_rows", "batch_rows")
    for name in (*chosen_rows, *content):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            flag = "--" + name.replace("_", "-")
            raise typer.BadParameter("belongs to a new cache (--out); CACHE keeps the plan it has", param_hint=flag)


@app.command()
def info(cache: CachePath, as_json: Json = False) -> None:
    """Say what a cache holds, how far it has come, and what failed."""
    from frame.pipeline.commands import info_command

    info_command(_place(cache), as_json=as_json)


@app.command()
def verify(
    cache: CachePath,
    against_teacher: Annotated[
        int, typer.Option(min=0, help="Also compute so many random rows again and compare.")
    ] = 0,
    source: Source = None,
    weights: Weights = None,
    seed: Annotated[int, typer.Option(help="Which rows --against-teacher draws.")] = 0,
    as_json: Json = False,
) -> None:
    """Check every byte against the receipts; name what is truncated, changed, missing, swapped, stale or left over."""
    from frame.pipeline.commands import verify_command

    code = verify_command(
        _place(cache),
        rows=against_teacher,
        source=source,
        weights=tuple(weights or ()),
        seed=seed,
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command()
def export(
    cache: CachePath,
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="Folder of the copy, or s3://BUCKET/NAME.", show_default=False)
    ],
    to: Annotated[Literal["zarr", "webdataset"], typer.Option(help="File format of the copy.")],
    units: Annotated[str | None, typer.Option(help="Unit numbers and ranges: 0,3,8-15. Default: all.")] = None,
    columns: Annotated[str | None, typer.Option(help="Comma-separated column names. Default: all.")] = None,
    clips: Annotated[
        str | None,
        typer.Option(help="Comma-separated ids and patterns ('dog_*'), or @FILE with one a line; packed anew."),
    ] = None,
    unit_rows: Annotated[
        int | None, typer.Option(help="Frames a unit of the copy, packed anew. Default: those of CACHE.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy a cache, or chosen clips, units and columns of it, into either file format."""
    from frame.pipeline.commands import export_command

    export_command(
        _place(cache),
        _place(destination),
        to=to,
        units=units,
        columns=columns,
        clips=clips,
        unit_rows=unit_rows,
        as_json=as_json,
    )


@app.command()
def merge(
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="Folder of the new cache, or s3://BUCKET/NAME.", show_default=False)
    ],
    caches: Annotated[
        list[str],
        typer.Argument(metavar="CACHE CACHE…", help="The caches to join; none is changed.", show_default=False),
    ],
    to: Annotated[
        Literal["zarr", "webdataset"] | None, typer.Option(help="File format of the new cache. Default: the first's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Join caches that were built apart: units, columns or clips. Goes on where it was stopped."""
    from frame.pipeline.commands import merge_command

    merge_command(_place(destination), [_place(cache) for cache in caches], to=to, as_json=as_json)


@app.command()
def recode(
    cache: CachePath,
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="Folder of the new cache, or s3://BUCKET/NAME.", show_default=False)
    ],
    encoding: EncodingOption,
    to: Annotated[
        Literal["zarr", "webdataset"] | None, typer.Option(help="File format of the new cache. Default: the same.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a cache anew in another encoding, without its teachers; goes on where it was stopped."""
    from frame.pipeline.commands import recode_command

    recode_command(_place(cache), _place(destination), encoding=encoding, to=to, as_json=as_json)


@app.command()
def view(
    cache: CachePath,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    clips: Annotated[int, typer.Option(min=1, help="How many clips to show.")] = 6,
    seed: Annotated[int, typer.Option(help="Which clips are drawn.")] = 0,
    run: Annotated[
        list[Path] | None, typer.Option(help="Folder of a training run whose curves to show; may be repeated.")
    ] = None,
    results: Annotated[
        list[Path] | None, typer.Option(help="Folder with results of `frame-eval` below it; may be repeated.")
    ] = None,
) -> None:
    """Write one HTML page: contents, failures, sizes, frames beside features, training runs, evaluations."""
    from frame.pipeline.commands import view_command

    view_command(_place(cache), out=out, clips=clips, seed=seed, runs=run or (), results=results or ())


@app.command()
def datasets() -> None:
    """List the data sets whose layout is known, with their licences."""
    from frame.pipeline.commands import datasets_command

    datasets_command()


@app.command()
def sprites(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to fill.", show_default=False)],
    clips: Annotated[int, typer.Option(min=1)] = 24,
    frames: Annotated[int, typer.Option(min=1)] = 32,
    size: Annotated[int, typer.Option(min=32)] = 224,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Generate the labelled `sprites` videos, with exact ground truth for every frame."""
    from frame.pipeline.commands import sprites_command

    sprites_command(out, clips=clips, frames=frames, size=size, seed=seed)


URL = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        help="hf://datasets/USER/NAME[@REVISION], s3://BUCKET/NAME, or what fsspec reaches: gs://, sftp://, file:///…",
        show_default=False,
    ),
]


@app.command()
def push(
    cache: CachePath,
    url: URL,
    public: Annotated[bool, typer.Option("--public", help="Make, or add to, a public repository on the hub.")] = False,
    no_read_back: Annotated[
        bool, typer.Option("--no-read-back", help="Compare sizes of what arrived, instead of reading it back.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send a cache to another place, checked on the way out and on arrival; goes on where it was stopped."""
    from frame.pipeline.sharing_commands import push_command

    push_command(_place(cache), url, public=public, read_back=not no_read_back, as_json=as_json)


@app.command()
def pull(url: URL, cache: CachePath, as_json: Json = False) -> None:
    """Bring a cache from another place into a folder, every file checked; goes on where it was stopped."""
    from frame.pipeline.sharing_commands import pull_command

    pull_command(url, _place(cache), as_json=as_json)


def main() -> None:
    """The console command."""
    run_command(app, "frame-cache", terminated=_terminate)


def _terminate(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
