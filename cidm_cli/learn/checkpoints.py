"""Checkpoints of a training: everything it needs to go on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ..errors import CidmError, ExitCode
from .step import Trainee, parameters

_TERM, _STATE, _SCALE = "term.", "method.", "scale"


def checkpoint(trainee: Trainee) -> bytes:
    """Everything needed to go on: factors, tokens, the optimizer's moments, the method's state, the losses so far."""
    tensors = {"losses": torch.tensor(trainee.losses, dtype=torch.float64)}
    if trainee.base.compute == torch.float16:
        tensors[_SCALE] = torch.tensor(trainee.scale, dtype=torch.float64)
    for name, values in trainee.terms.items():
        tensors[_TERM + name] = torch.tensor(values, dtype=torch.float64)
    for name, tensor in trainee.method.regulariser.state().items():
        tensors[_STATE + name] = tensor.detach()
    for number, parameter in enumerate(parameters(trainee)):
        tensors[f"{number:04d}.value"] = parameter.detach()
        for key, value in trainee.optimizer.state[parameter].items():
            # The 8-bit optimizer's tables are one for all, and a file of tensors holds each by itself.
            tensors[f"{number:04d}.{key}"] = torch.as_tensor(value).clone()
    return save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})


def restore(trainee: Trainee, blob: bytes) -> None:
    """Takes up a training where ``checkpoint`` left it.

    Raises:
        CidmError: INVALID for what is no checkpoint of such a training; nothing can be done with the trainee then.
    """
    try:
        _restore(trainee, load(blob))
    except torch.OutOfMemoryError:
        raise
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise CidmError(
            f"concept {trainee.name}: its checkpoint is not one of this training ({why})",
            hint="begin again with --restart",
            code=ExitCode.INVALID,
        ) from error


def _restore(trainee: Trainee, tensors: dict[str, torch.Tensor]) -> None:
    trainee.losses[:] = _numbers(tensors.pop("losses"))
    if _SCALE in tensors:
        trainee.scale = float(tensors.pop(_SCALE))
    trainee.terms.clear()
    trainee.terms.update({name: _numbers(values) for name, values in _under(_TERM, tensors).items()})
    state = {name: tensor.to(trainee.base.device) for name, tensor in _under(_STATE, tensors).items()}
    trainee.method.regulariser.restore(state)
    for number, parameter in enumerate(parameters(trainee)):
        mine = _under(f"{number:04d}.", tensors)
        value = mine.pop("value")
        if value.shape != parameter.shape:
            raise ValueError(f"tensor {number} is {list(value.shape)}, and should be {list(parameter.shape)}")
        parameter.data.copy_(value)
        if isinstance(trainee.optimizer, torch.optim.AdamW):
            # Whatever is wrong with these, the optimizer would find out in the next step.
            moments = {"exp_avg": parameter.shape, "exp_avg_sq": parameter.shape, "step": torch.Size()}
            if mine and {name: tensor.shape for name, tensor in mine.items()} != moments:
                raise ValueError(f"the moments of tensor {number} are not those of this optimizer")
        trainee.optimizer.state[parameter] = {
            key: _state(key, value, parameter.device) for key, value in mine.items()
        }


def _numbers(tensor: torch.Tensor) -> list[float]:
    """A list of numbers, one a step. Raises ValueError for anything else."""
    if tensor.ndim != 1 or not tensor.is_floating_point():
        raise ValueError("it tells no list of losses")
    return tensor.tolist()


def _state(key: str, value: torch.Tensor, device: torch.device) -> torch.Tensor | int:
    """An optimizer's value as it had it: torch's counts steps in a float32 on the CPU, the 8-bit one in an int."""
    if key != "step":
        return value.to(device)
    return value if value.is_floating_point() else int(value)


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What begins with ``prefix``, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
