"""The optimiser, its groups of parameters, and its state under names that survive in a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

OptimizerName = Literal["adam", "adamw"]


def make_optimizer(
    module: nn.Module, *, name: OptimizerName, lr: float, weight_decay: float, fused: bool
) -> torch.optim.Optimizer:
    """Adam (decay coupled, as L2) or AdamW over the parameters that learn.

    Decay is for matrices: biases, norms, the class token, positions and ages are left alone.
    """
    learning = list(trained(module).items())
    plain = [parameter for key, parameter in learning if _decays(key, parameter)]
    exempt = [parameter for key, parameter in learning if not _decays(key, parameter)]
    groups = [{"params": plain, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind([group for group in groups if group["params"]], lr=lr, fused=fused)


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name."""
    return {key: parameter for key, parameter in module.named_parameters() if parameter.requires_grad}


def _decays(key: str, parameter: Tensor) -> bool:
    return parameter.ndim >= 2 and not key.endswith(("pos_embed", "cls_token", "age"))


def optimizer_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as ``PARAMETER/ENTRY`` tensors, parameters by their names in ``module``."""
    names: dict[Tensor, str] = {parameter: key for key, parameter in module.named_parameters()}
    return {
        f"{names[parameter]}/{entry}": value.detach().cpu().contiguous()
        for parameter, state in optimizer.state.items()
        for entry, value in state.items()
    }


def load_optimizer_tensors(module: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The reverse of ``optimizer_tensors``. Raises ``ValueError`` if the names are not those of this module."""
    if not tensors:
        return  # of an optimiser that has made no step
    parameters = trained(module)
    if unknown := sorted({key.partition("/")[0] for key in tensors} ^ parameters.keys()):
        raise ValueError(f"the optimiser's state is of other parameters: {', '.join(unknown[:4])}")
    for key, value in tensors.items():
        name, _, entry = key.partition("/")
        parameter = parameters[name]
        # Adam keeps its count of steps on the processor, except in fused kernels.
        stays = entry == "step" and not optimizer.defaults.get("fused")
        place = value.device if stays else parameter.device
        optimizer.state[parameter][entry] = value.to(place, copy=True)
