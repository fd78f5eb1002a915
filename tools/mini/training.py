"""What the three trainings share: time-budgeted schedule, optimizer, moving average, checkpoints."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import distributed as dist
from torch import nn


@dataclass
class Clock:
    """How far a training is through its steps, and the seconds it took; survives a restart through its checkpoint."""

    steps: int
    done: int = 0
    before_s: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def tick(self) -> None:
        """One more step is done."""
        self.done += 1

    @property
    def spent_s(self) -> float:
        return self.before_s + time.monotonic() - self.started

    @property
    def progress(self) -> float:
        return min(1.0, self.done / self.steps)

    def rate(self, warmup: float = 0.01, decay_from: float = 0.35) -> float:
        """Learning-rate factor: linear warm-up, flat, then linear to zero at the last step."""
        p = self.progress
        if p < warmup:
            return max(0.02, p / warmup)
        return 1.0 if p < decay_from else max(0.0, (1 - p) / (1 - decay_from))


class MuonAdamW:
    """Muon for hidden weight matrices (convolutions flattened to out x rest), AdamW for everything else.

    torch's own Muon takes matrices only; the flattened convolution weights are given to it as views that share
    their storage with the model's parameters. Where torch.distributed is initialised, each process orthogonalises its
    share of the matrices and sends the others what came out.
    """

    def __init__(self, model: nn.Module, *, lr: float, adamw_lr: float, skip: Callable[[str], bool]) -> None:
        self.world, self.rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
        self.views: list[tuple[nn.Parameter, nn.Parameter]] = []
        rest = []
        for name, p in model.named_parameters():
            if not p.requires_grad:
                continue
            if p.ndim >= 2 and min(p.shape[0], p[0].numel()) >= 16 and not skip(name):
                self.views.append((p, nn.Parameter(p.data.flatten(1))))
            else:
                rest.append(p)
        self.base = (lr, adamw_lr)
        self.muon = torch.optim.Muon(
            [v for _, v in self.views],
            lr=lr,
            weight_decay=0.01,
            momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        )
        self.adamw = torch.optim.AdamW(rest, lr=adamw_lr, betas=(0.9, 0.99), weight_decay=0.0)

    def _shared(self, rank: int) -> list[nn.Parameter]:
        """The matrices that one process is in charge of: every so-many-th, from the largest to the smallest."""
        by_size = sorted((view for _, view in self.views), key=lambda view: -view.numel())
        return by_size[rank :: self.world]

    def step(self, rate: float) -> None:
        """One step of the gradients that every process has alike."""
        for p, view in self.views:
            view.grad = None if p.grad is None else p.grad.flatten(1)
            p.grad = None
        for rank in range(self.world):
            for view in self._shared(rank) if rank != self.rank else ():
                view.grad = None
        for optimizer, lr in zip((self.muon, self.adamw), self.base, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = lr * rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for rank in range(self.world if self.world > 1 else 0):
            spread([view.data for view in self._shared(rank)], rank)

    def state(self) -> dict[str, torch.Tensor]:
        """Everything a restart needs; where there are several processes, all have to ask at the same step."""
        for rank in range(self.world if self.world > 1 else 0):
            buffers = [
                self.muon.state[view].setdefault("momentum_buffer", torch.zeros_like(view.data))
                for view in self._shared(rank)
            ]
            spread(buffers, rank)
        out = {}
        for tag, optimizer in (("muon", self.muon), ("adamw", self.adamw)):
            for index, values in optimizer.state_dict()["state"].items():
                for key, value in values.items():
                    out[f"{tag}.{index}.{key}"] = torch.as_tensor(value).clone()
        return out

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        for tag, optimizer in (("muon", self.muon), ("adamw", self.adamw)):
            whole = optimizer.state_dict()
            whole["state"] = {}
            for name, value in tensors.items():
                head, index, key = [*name.split(".", 2), "", ""][:3]
                if head == tag:
                    whole["state"].setdefault(int(index), {})[key] = value
            optimizer.load_state_dict(whole)


class Average:
    """Exponential moving average of a model's weights, with a horizon that grows with the training."""

    def __init__(self, model: nn.Module, horizon: float) -> None:
        self.horizon, self.updates = horizon, 0
        self.shadow = {k: v.detach().clone() for k, v in model.state_dict().items()}

    def load(self, shadow: dict[str, torch.Tensor], updates: int) -> None:
        """Goes on from a checkpoint's average."""
        self.updates = updates
        self.shadow = {name: value.to(self.shadow[name].device) for name, value in shadow.items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        keep = 1 - 1 / min(self.horizon, 1 + self.updates / 5)
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.shadow[name].lerp_(value, 1 - keep)
            else:
                self.shadow[name].copy_(value)


def save_checkpoint(path: Path, parts: dict[str, dict[str, torch.Tensor]], facts: dict) -> None:
    """Writes named groups of tensors and a JSON object, whole or not at all."""
    flat = {
        f"{part}/{k}": v.detach().contiguous().clone()
        for part, group in parts.items()
        for k, v in group.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file(flat, temporary, metadata={"facts": json.dumps(facts)})
    os.replace(temporary, path)


def load_checkpoint(path: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict] | None:
    """The groups and facts of a checkpoint; None when there is none."""
    if not path.exists():
        return None
    parts: dict[str, dict[str, torch.Tensor]] = {}
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a dict
            part, key = name.split("/", 1)
            parts.setdefault(part, {})[key] = file.get_tensor(name)
        return parts, json.loads(file.metadata()["facts"])


def as_one(tensors: list[torch.Tensor], exchange: Callable[[torch.Tensor], object]) -> None:
    """Exchanges tensors between processes all at once, in place; ``exchange`` is given them as one flat tensor."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    exchange(flat)
    for tensor, values in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(values.view_as(tensor))


def spread(tensors: list[torch.Tensor], rank: int) -> None:
    """Gives every process the values that the tensors have in process ``rank``."""
    as_one(tensors, lambda flat: dist.broadcast(flat, rank))


def shared_mean(tensors: list[torch.Tensor]) -> None:
    """Makes every process's tensors the mean over all of them."""
    as_one(tensors, lambda flat: (dist.all_reduce(flat), flat.div_(dist.get_world_size())))


def clip_norm(parameters: Iterable[nn.Parameter], limit: float) -> float:
    """Gradient norm before clipping to ``limit``; raises FloatingPointError when it is not finite."""
    norm = float(nn.utils.clip_grad_norm_(list(parameters), limit))
    if not math.isfinite(norm):
        raise FloatingPointError("the gradient is not finite")
    return norm
