"""What LoRA files call layers that the original code has under other names than diffusers, some of them in one."""

from __future__ import annotations

from collections.abc import Mapping

from ..formats.diffusers_lora import COMFYUI
from ..formats.kohya import PREFIX
from ..formats.lora import Names


def named(native: Mapping[str, str]) -> Names:
    """The names of layers, of those of the original code by site; one for several sites is these in one, in order."""
    held: dict[str, list[str]] = {}
    for site, name in native.items():
        held.setdefault(name, []).append(site)
    single = {name: some[0] for name, some in held.items() if len(some) == 1}
    fused = {name: tuple(some) for name, some in held.items() if len(some) > 1}
    either = {**{site: site for site in native}, **single}
    return Names(
        kohya={site: _module(name) for site, name in native.items()},
        kohya_sites={_module(name): site for name, site in either.items()},
        dotted=either,
        native=native,
        fused={_module(name): tuple(map(_module, some)) for name, some in fused.items()}
        | {COMFYUI + name: tuple(COMFYUI + site for site in some) for name, some in fused.items()},
    )


def _module(name: str) -> str:
    return PREFIX + name.replace(".", "_")
