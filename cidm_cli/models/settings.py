"""Settings that others wrote for their models, looked through before a library reads them. No torch.

diffusers and transformers do what a `config.json` says: fetch a kernel for the attention or a whole backbone, import a
package, count to a billion. What could make them is refused here, by the name of its key.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..bases import families
from ..errors import CidmError, ExitCode
from ..files.json_files import read_json
from ..files.reading import opened

LARGEST = {
    "model_index.json": 1 << 20,
    "config.json": 1 << 20,
    "scheduler_config.json": 10_000,
    # Pixels, to which a picture is brought.
    "preprocessor_config.json": 4096,
    "processor_config.json": 4096,
    # A tokenizer without a limit of its length tells a number of 31 digits.
    "tokenizer_config.json": None,
    "special_tokens_map.json": None,
    "added_tokens.json": None,
    "generation_config.json": None,
}
"""Files of settings, and the largest whole number that any honest one holds."""
MOST_LAYERS = 1000
"""Where a key counts layers."""
OTHERS = ("vocab.json", "merges.txt", "tokenizer.json")
"""What the libraries read besides, which says nothing that they would obey."""

_MAX_BYTES = 1 << 20
_CODE = frozenset(
    "auto_map backbone base_model_name_or_path compression_config kernel_config quantization_config use_kernels "
    "use_pretrained_backbone use_timm_backbone".split()
)
"""Keys by which a library fetches or runs more than the model itself."""
_IMPLEMENTATIONS = ("attn_implementation", "experts_implementation")
_OWN = ("eager", "sdpa", "")
"""Implementations that are part of the libraries."""
_CHOICES = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "prediction_type": ("epsilon", "v_prediction"),
    "timestep_spacing": ("linspace", "leading", "trailing"),
}
"""What a noise schedule may be, as all samplers and the training know it."""


def check_base(folder: Path) -> None:
    """Looks through the settings of all parts of a base, a diffusers folder. Raises as ``check_settings``."""
    check_settings(folder)
    models = {part for one in families() for part in one.parts}
    for part in sorted({*models, "tokenizer", "tokenizer_2", "scheduler"}):
        check_settings(folder / part)


def check_settings(folder: Path) -> None:
    """Looks through the settings of one model, or one part of a base; what is not there is left to the reader.

    Raises:
        CidmError: INVALID, naming file and key, for what is no ordinary file of JSON, chooses code, or is endless.
    """
    if (folder / "adapter_config.json").exists():
        # transformers would load what that names, and not what lies here.
        raise _refused(folder / "adapter_config.json", "is of a LoRA, not of a whole model")
    for name in OTHERS:
        if (folder / name).exists():
            with opened(folder / name):
                pass
    for name, largest in LARGEST.items():
        if (folder / name).exists():
            _check_file(folder / name, largest)


def _check_file(file: Path, largest: int | None) -> None:
    content = read_json(file, _MAX_BYTES)
    if not isinstance(content, dict):
        raise _refused(file, "holds no JSON object")
    for key, value in _entries(content):
        if key in _CODE and value:
            raise _refused(file, f"{key} is set, which has libraries fetch or run other code")
        if key.removeprefix("_").removesuffix("_internal") in _IMPLEMENTATIONS and (value or "") not in _OWN:
            raise _refused(file, f"{key} is {value!r}, which has libraries fetch or run other code")
        if key in _CHOICES and value is not None and value not in _CHOICES[key]:
            raise _refused(file, f"{key} is {value!r}, and not one of {', '.join(_CHOICES[key])}")
        most = MOST_LAYERS if "layers" in key or key == "depths" else largest
        if largest is not None and most is not None and isinstance(value, int) and abs(value) > most:
            raise _refused(file, f"{key} is {value}, more than any model's ({most})")


def _entries(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in JSON, tables and lists among them, with the key it stands under."""
    yield name, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _entries(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner, name)


def _refused(file: Path, what: str) -> CidmError:
    shown = what if len(what) <= 200 else what[:199] + "…"
    return CidmError(
        f"{file}: {shown}",
        hint="take the model from its first source; cidm runs no code of a model's maker",
        code=ExitCode.INVALID,
    )
