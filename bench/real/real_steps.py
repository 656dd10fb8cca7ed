"""What `make real` does, as plain commands: pure data, from what there is and how large to make it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

TEACHER = "teacher"  # the alias of the one teacher, and the name of its results
PRESETS = ("dino", "siammae")
BEGINS = {"scratch": (), "init": ("--student-init", "teacher")}
"""How a student begins: from random values, as in the paper, or as its teacher, the short cut for small data (with a
recipe of its own, whose name ends alike)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """``videos`` are folders to train on, a cache each; ``spec`` and ``weights`` the teacher of both targets; ``ahead``
    how many frames of CamVid's videos lie between a still and the label that is foretold from it."""

    videos: tuple[Path, ...]
    davis: Path
    camvid: Path
    ahead: int
    spec: str
    weights: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """``pixels`` of a frame's side in the caches; ``recipe`` of both stages; ``second`` are the seeds that the second
    preset and CamVid are measured for; ``schedule`` of CamVid's head; ``ablations``: settings of stage 2 by name."""

    name: str
    pixels: int
    recipe: str
    seeds: tuple[int, ...]
    second: tuple[int, ...]
    schedule: str
    ablations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


ABLATIONS = {
    "no anticipation": ("anticipation=False",),
    "memory of 1 frame": ("memory_frames=1",),
    "memory of 3 frames": ("memory_frames=3",),
    "memory of 7 frames": ("memory_frames=7",),
    "lr / 3": ("lr=3e-4",),
    "twice as long": ("steps=600",),
}
SIZES = {
    "cpu": Size(name="cpu", pixels=160, recipe="real-cpu", seeds=(0, 1, 2), second=(0,), schedule="500"),
    "gpu": Size(
        name="gpu", pixels=400, recipe="real-gpu", seeds=(0, 1, 2), second=(0, 1, 2), schedule="full",
        ablations=ABLATIONS,
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One command, to be run when those named in ``after`` have ended well. Ray's commands want the machine alone."""

    name: str
    words: tuple[str, ...]
    after: tuple[str, ...] = ()
    alone: bool = False

    @property
    def kind(self) -> str:
        """Of which there are several: program, command, and the preset if there is one."""
        preset = [self.words[self.words.index("--preset") + 1]] if "--preset" in self.words else []
        return " ".join([*self.words[:2], *preset])


def caches(inputs: Inputs, out: Path) -> list[Path]:
    """Where the caches go, one for each folder of videos."""
    return [out / f"cache-{number}" for number in range(len(inputs.videos))]


def all_steps(inputs: Inputs, size: Size, out: Path) -> list[Step]:
    """Every command, in an order in which they could be run one by one."""
    teacher = ("--weights", str(inputs.weights))
    steps = _cache_steps(inputs, size, out)
    built = (steps[-1].name,)
    steps += _evaluations(inputs, size, out, TEACHER, inputs.spec, teacher, size.second, after=built)
    for seed in size.seeds:
        for begin, options in BEGINS.items():
            steps += _training(inputs, size, out, begin, seed, options, built)
    for name, settings in size.ablations.items():
        steps += _ablation(inputs, size, out, name, settings)
    return [*steps, *_pictures(inputs, size, out, after=tuple(step.name for step in steps))]


def _cache_steps(inputs: Inputs, size: Size, out: Path) -> list[Step]:
    steps: list[Step] = []
    for number, (videos, cache) in enumerate(zip(inputs.videos, caches(inputs, out), strict=True)):
        options: tuple[str, ...] = (
            "--dataset",
            "folder",
            "--source",
            str(videos),
            "--out",
            str(cache),
            "--size",
            str(size.pixels),
        )
        options += ("--teachers", f"{TEACHER}={inputs.spec}", "--weights", f"{TEACHER}={inputs.weights}")
        commands: dict[str, tuple[str, ...]] = {
            "plan": ("frame-cache", "plan", *options),
            "build": ("frame-cache", "build", *options, "--max-failures", "0.2"),
            "verify": ("frame-cache", "verify", str(cache), "--against-teacher", "10"),
        }
        for verb, words in commands.items():
            before = (steps[-1].name,) if steps else ()
            steps.append(Step(name=f"{verb}-{number}", words=words, after=before, alone=True))
    first = caches(inputs, out)[0]
    words = ("frame-eval", "deltas", "--data", str(first), "--out", str(out / "results" / "deltas"))
    return [*steps, Step(name="deltas", words=words, after=(steps[-1].name,))]


def _training(
    inputs: Inputs, size: Size, out: Path, begin: str, seed: int, options: tuple[str, ...], built: tuple[str, ...]
) -> list[Step]:
    run, name = out / "runs" / f"{begin}-{seed}", f"{begin}-{seed}"
    recipe = size.recipe if begin == "scratch" else f"{size.recipe}-{begin}"
    both = ("--cache", ",".join(map(str, caches(inputs, out))), "--recipe", recipe, "--seed", str(seed))
    targets = ("--spatial", f"{TEACHER}.patch", "--semantic", f"{TEACHER}.cls")
    one = ("frame-train", "stage1", *both, *targets, *options, "--out", str(run / "stage1"), "--resume")
    two = ("frame-train", "stage2", *both, "--init", str(run / "stage1"), "--out", str(run / "stage2"), "--resume")
    steps = [
        Step(name=f"{name}-stage1", words=one, after=built),
        Step(name=f"{name}-stage2", words=two, after=(f"{name}-stage1",)),
    ]
    for stage in ("stage1", "stage2"):
        key, second = f"{name}-{stage}", (seed,) if seed in size.second else ()
        steps += _evaluations(inputs, size, out, key, str(run / stage), (), second, after=(key,))
    return steps


def _evaluations(
    inputs: Inputs, size: Size, out: Path, key: str, encoder: str, more: tuple[str, ...], second: tuple[int, ...],
    *, after: tuple[str, ...],
) -> list[Step]:  # fmt: skip
    results = out / "results" / key
    common = ("--encoder", encoder, *more)
    commands: dict[str, tuple[str, ...]] = {
        f"davis-{preset}": ("davis", "--data", str(inputs.davis), "--preset", preset)
        for preset in PRESETS[: 2 if second else 1]
    }
    if second:
        commands["camvid"] = (
            "camvid",
            "--data",
            str(inputs.camvid),
            "--deltas",
            f"0,{inputs.ahead}",
            "--schedule",
            size.schedule,
        )
    return [
        Step(
            name=f"{key}-{task}", words=("frame-eval", *words, *common, "--out", str(results / task)), after=after
        )
        for task, words in commands.items()
    ]  # fmt: skip


def _pictures(inputs: Inputs, size: Size, out: Path, *, after: tuple[str, ...]) -> list[Step]:
    """One page of everything, and the features of a sequence beside each other: teacher, stage 1, stage 2."""
    runs = [out / "runs" / f"{begin}-{size.seeds[0]}" / stage for begin in BEGINS for stage in ("stage1", "stage2")]
    page: tuple[str, ...] = ("frame-cache", "view", str(caches(inputs, out)[0]), "--out", str(out / "report.html"))
    page += (*(word for run in runs for word in ("--run", str(run))), "--results", str(out / "results"))
    show: tuple[str, ...] = ("frame-eval", "show", "--video", str(_sequence(inputs.davis)), "--encoder", inputs.spec)
    show += ("--weights", f"{inputs.spec}={inputs.weights}", "--out", str(out / "show"))
    show += tuple(word for run in runs for word in ("--encoder", str(run)))
    return [Step(name="view", words=page, after=after), Step(name="show", words=show, after=after)]


def _sequence(davis: Path) -> Path:
    """The first of DAVIS's sequences."""
    return min((davis / "JPEGImages" / "480p").glob("*/"), default=davis)


def _ablation(inputs: Inputs, size: Size, out: Path, name: str, settings: tuple[str, ...]) -> list[Step]:
    """Stage 2 of the first seed from scratch with other settings, and what it does on DAVIS."""
    seed = size.seeds[0]
    key, base = "ablation-" + name.replace(" ", "-").replace("/", "by"), out / "runs" / f"scratch-{seed}" / "stage1"
    words: tuple[str, ...] = (
        "frame-train",
        "stage2",
        "--cache",
        ",".join(map(str, caches(inputs, out))),
        "--recipe",
        size.recipe,
    )
    words += ("--seed", str(seed), "--init", str(base), "--out", str(out / "runs" / key), "--resume")
    words += tuple(word for setting in settings for word in ("--set", setting))
    train = Step(name=key, words=words, after=(f"scratch-{seed}-stage1",))
    return [train, *_evaluations(inputs, size, out, key, str(out / "runs" / key), (), (), after=(key,))]
