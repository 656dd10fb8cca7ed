"""The protocols of the literature as data: ``presets/NAME.yaml`` has the knobs for each task its source defines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from frame.eval.encoder import IMAGENET_STD, Triple
from frame.eval.propagate.images import Library, Rule
from frame.eval.propagate.label_maps import Down, MinMax, Up
from frame.eval.propagate.propagation import Propagation
from frame.manifests.errors import InputError

Task = Literal["davis", "vip", "jhmdb"]
_FOLDER = files("frame.eval.propagate") / "presets"


@dataclass(frozen=True, kw_only=True, slots=True)
class InputKnobs:
    """How frames reach the encoder. ``rule`` and ``sides``: see ``images.input_size``.

    ``resized_as``: whether values are rounded when the frame is resized (``uint8``) or not (``float32``); a score moves
    by up to 0.003. ``colour`` ``lightness``: L of L*a*b* as grey. ``std``: what an encoder that has ImageNet's
    normalisation divides by.
    """

    rule: Rule
    sides: tuple[int, ...] = ()
    resized_as: Literal["uint8", "float32"] = "uint8"
    colour: Literal["rgb", "lightness"] = "rgb"
    std: Triple = IMAGENET_STD

    def __post_init__(self) -> None:
        needed = {"fixed": 2, "native": 0}.get(self.rule, 1)
        if len(self.sides) != needed:
            raise _wrong("sides", self.sides, f"{needed} number(s) for the rule {self.rule}, such as 480x880")
        if (self.colour, self.resized_as) == ("lightness", "float32"):
            raise _wrong("resized_as", self.resized_as, "uint8: lightness is taken of rounded values")
        if any(length < 1 for length in self.sides):
            raise _wrong("sides", self.sides, "pixels, 1 or more")
        if len(self.std) != 3 or not all(0 < value < float("inf") for value in self.std):
            raise _wrong("std", self.std, "three numbers above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskKnobs:
    """From id maps to soft labels of cells and back: see ``label_maps``.

    ``back``: whose nearest neighbour brings ids to the size of the true masks.
    ``copy``: height and width that the dataset was resized to beforehand, pictures and masks, by nearest neighbour; it
    is then scored at that size.
    """

    labels: Down
    upsample: Up
    back: Library = "pillow"
    minmax: MinMax = "none"
    copy: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.copy) not in (0, 2) or any(length < 1 for length in self.copy):
            raise _wrong("copy", self.copy, "height and width in pixels, such as 480x880")


@dataclass(frozen=True, kw_only=True, slots=True)
class JointKnobs:
    """From joints to soft labels of cells and back: dots of ``sigma`` cells, the mean of the ``best`` cells."""

    sigma: float
    best: int

    def __post_init__(self) -> None:
        if not 0 < self.sigma < float("inf"):
            raise _wrong("sigma", self.sigma, "a number above 0")
        if self.best < 1:
            raise _wrong("best", self.best, "a whole number from 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """All knobs of one protocol on one task. ``name`` says which of them were changed: ``dino+topk=7``."""

    name: str
    task: Task
    propagation: Propagation
    input: InputKnobs
    masks: MaskKnobs | None = None  # davis, vip
    joints: JointKnobs | None = None  # jhmdb

    def options(self) -> dict[str, Any]:
        """Every knob by its name, as JSON values."""
        groups = [asdict(group) for group in (self.propagation, self.input, self.masks, self.joints) if group]
        flat = {name: value for group in groups for name, value in group.items()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in flat.items()}


_GROUPS: Mapping[str, type[Any]] = {
    "propagation": Propagation,
    "input": InputKnobs,
    "masks": MaskKnobs,
    "joints": JointKnobs,
}


def load_preset(task: Task, name: str, changes: Sequence[str] = ()) -> Preset:
    """The preset ``name`` for ``task``, with ``changes`` of single knobs (``topk=7``, ``sides=480x880``).

    Raises InputError for a preset that there is not or that does not define the task, naming those that do, and for a
    knob or a value that does not exist.
    """
    stored = _stored(name)
    if task not in stored:
        raise InputError(
            what=f"The preset {name} is not defined for {task}.",
            where=f"--preset {name}",
            why=f"its source has {', '.join(stored)} only",
            fix=f"use one of {', '.join(presets(task))}",
        )
    groups = {key: _typed(_GROUPS[key], values) for key, values in stored[task].items()}
    before = {key: dict(values) for key, values in groups.items()}
    for change in changes:
        _change(groups, change)
    built = {key: _GROUPS[key](**values) for key, values in groups.items()}
    changed = {
        knob: value
        for key, values in groups.items()
        for knob, value in values.items()
        if value != before[key].get(knob, _default(_GROUPS[key], knob))
    }
    propagation = built["propagation"]
    if propagation.shape == "none" and any(change.partition("=")[0].strip() == "radius" for change in changes):
        raise InputError(
            what="A radius does nothing without a neighbourhood.",
            where="--set radius",
            why="here shape is none: every cell of a frame is looked at",
            fix="add --set shape=square or shape=circle, or leave the radius out",
        )
    full = name + "".join(f"+{knob}={_shown(changed[knob])}" for knob in sorted(changed))
    return Preset(name=full, task=task, **built)


def presets(task: Task) -> list[str]:
    """The names of the presets that define ``task``."""
    return [name for name in _names() if task in _stored(name)]


def _names() -> list[str]:
    return sorted(entry.name.removesuffix(".yaml") for entry in _FOLDER.iterdir() if entry.name.endswith(".yaml"))


def _stored(name: str) -> dict[str, dict[str, dict[str, Any]]]:
    if name not in _names():
        raise InputError(what="There is no such preset.", where=f"--preset {name}", fix=f"use {', '.join(_names())}")
    values: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text("utf-8"))
    return values


def _change(groups: dict[str, dict[str, Any]], change: str) -> None:
    """Set one knob in ``groups``. Raises InputError for an unknown knob, and for a value that it cannot have."""
    knob, equals, text = (part.strip() for part in change.partition("="))
    known = {field.name: key for key in groups for field in fields(_GROUPS[key])}
    if not equals or knob not in known:
        raise InputError(
            what="There is no such knob." if equals else "A change of a knob is NAME=VALUE.",
            where=f"--set {change}",
            fix=f"the knobs here are {', '.join(sorted(known))}",
        )
    groups[known[knob]][knob] = _parsed(knob, text, get_type_hints(_GROUPS[known[knob]])[knob])


def _default(group: type[Any], knob: str) -> Any:
    return next(field.default for field in fields(group) if field.name == knob)


def _shown(value: Any) -> str:
    """As it may be given to --set."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()


def _parsed(knob: str, text: str, kind: Any) -> Any:
    """The text as a value of the knob's type. Raises InputError where it is none."""
    try:
        if get_origin(kind) is tuple:
            return _typed_one(kind, [yaml.safe_load(part) for part in text.split("x")] if text else [])
        value = yaml.safe_load(text)
        return _typed_one(kind, value if get_origin(kind) is not Literal else text)
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise _wrong(knob, text, _expected(kind)) from error


def _typed(group: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(group)
    return {name: _typed_one(hints[name], value) for name, value in values.items()}


def _typed_one(kind: Any, value: Any) -> Any:
    """``value`` as ``kind``: no text for a number, no number for a truth. Raises ValueError."""
    if get_origin(kind) is Literal:
        fits = value in get_args(kind)
    elif get_origin(kind) is tuple:
        return tuple(_typed_one(get_args(kind)[0], part) for part in value)
    elif kind is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        value = float(value) if fits else value
    else:
        fits = type(value) is kind
    if not fits:
        raise ValueError(f"{value!r} is not {_expected(kind)}")
    return value


def _expected(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is tuple:
        return "numbers with an x between, such as 480x880"
    return {int: "a whole number", float: "a number", bool: "true or false"}[kind]


def _wrong(name: str, value: object, expected: str) -> InputError:
    return InputError(what="A knob has no sense.", where=f"{name}={value}", fix=f"give {expected}")
