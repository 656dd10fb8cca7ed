"""Loading weights into a model with every key accounted for, or not at all."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from frame.manifests.errors import InputError

_SHOWN = 12


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], *, where: str) -> None:
    """Copy ``state`` into ``model``.

    Raises InputError with the list if a key is missing or unexpected, or its values are of another shape or kind, or
    not finite.
    """
    wanted = model.state_dict()
    problems = [f"missing: {key}" for key in wanted if key not in state]
    problems += [f"unexpected: {key}" for key in state if key not in wanted]
    for key in wanted.keys() & state.keys():
        problems += _tensor_problems(key, state[key], wanted[key])
    if problems:
        raise mismatch(sorted(problems), where=where)
    model.load_state_dict(dict(state), strict=True)


def _tensor_problems(key: str, found: Tensor, wanted: Tensor) -> list[str]:
    if found.shape != wanted.shape:
        return [f"shape: {key} is {tuple(found.shape)}, the model's {tuple(wanted.shape)}"]
    if found.is_floating_point() != wanted.is_floating_point():
        return [f"type: {key} is {found.dtype}, the model's {wanted.dtype}"]
    # The extremes carry any NaN along, and cost far less than a mask of every value.
    if found.numel() and not all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(found)):
        return [f"not finite: {key}"]
    return []


def mismatch(problems: list[str], *, where: str) -> InputError:
    """The refusal, with the first dozen of the problems and the count of the others."""
    shown = problems[:_SHOWN]
    if len(problems) > _SHOWN:
        shown.append(f"and {len(problems) - _SHOWN} more")
    return InputError(
        what=f"The weights do not fit the model: {len(problems)} of their tensors do not match.",
        where=where,
        why="\n         ".join(shown),
        fix="give the checkpoint of exactly this model, or name the model that this checkpoint is of",
    )
