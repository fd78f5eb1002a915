"""Watching tensors come and go: how many bytes live at once, and how much is multiplied."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_aten = torch.ops.aten
# The same products as a GPU's, which torch's table knows under the GPU's names only.
_COUNTS = {
    **flop_registry,
    _aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[
        _aten._scaled_dot_product_flash_attention
    ],
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        _aten._scaled_dot_product_flash_attention_backward
    ],
}


class Watch(TorchDispatchMode):
    """While open, counts what operations make, of tensors with numbers and of those without alike.

    What an operation takes for itself and gives back before it returns is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        """Bytes of the tensors that are there now."""
        self.peak = 0
        """Most of them so far, or since ``restart``."""
        self.flops = 0
        """Floating point operations of matrix products, convolutions and attention, as often counted."""
        self._alive: dict[int, weakref.ref[Any]] = {}

    def restart(self) -> None:
        """Counts anew from here; what lives, lives on."""
        self.peak, self.flops = self.live, 0

    def add(self, *tensors: torch.Tensor) -> None:
        """Takes tensors that were there before for living ones."""
        for tensor in tensors:
            self._born(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        try:
            out = func(*args, **kwargs)
        except DataDependentOutputException:
            # A number is asked for that nobody knows: any that is finite and true will do.
            return 1
        for value in tree_leaves(out):
            if isinstance(value, torch.Tensor):
                self._born(value)
        count = _COUNTS.get(func._overloadpacket)
        if count is not None:
            self.flops += int(count(*args, **kwargs, out_val=out))
        return out

    def _born(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._alive:
            size = storage.nbytes()
            self._alive[key] = weakref.ref(storage, partial(self._died, key, size))
            self.live += size
            self.peak = max(self.peak, self.live)

    def _died(self, key: int, size: int, _storage: Any) -> None:
        del self._alive[key]
        self.live -= size
