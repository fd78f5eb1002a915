"""Prompts as AUTOMATIC1111 keeps them: as text with its settings below, or as its interface is sent them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from cidm_cli.layout.drafts import Draft, Wishes
from cidm_cli.layout.regional_prompter import Settings, divide, refused

_SETTINGS = re.compile(r"^Steps: \d+,", re.MULTILINE)
_PAIR = re.compile(r'\s*([\w ./-]{1,60}):\s*("(?:[^"\\]++|\\.)*+"|[^,"]*)\s*(?:,|$)')


def read(text: str, source: str, wishes: Wishes) -> Draft:
    """The draft of a prompt, with the negative prompt and the settings that are written below it, if they are there.

    Raises CidmError: INVALID for an empty or too long prompt, a ratio that is none, or regions that were painted;
    USAGE for a ratio of the command line that is none.
    """
    pairs: dict[str, str] = {}
    found = list(_SETTINGS.finditer(text))
    if found:
        text, pairs = text[: found[-1].start()], _pairs(text[found[-1].start() :])
    prompt, _, negative = text.partition("\nNegative prompt:")
    draft = Draft("regional-prompter")
    draft.image = _image(pairs, draft)
    return divide(draft, prompt, negative, _settings(pairs, source), source, wishes)


def from_request(data: Mapping[str, Any], source: str, wishes: Wishes) -> Draft:
    """The draft of what AUTOMATIC1111's interface is sent (parsed JSON, with a "prompt"). Raises as `read` does."""
    draft = Draft("regional-prompter")
    sides = [data.get("width"), data.get("height")]
    if all(type(side) is int and 0 < side < 1 << 20 for side in sides):
        draft.image["size"] = tuple(sides)
    for key, name in (("seed", "seed"), ("steps", "steps"), ("guidance", "cfg_scale")):
        value = data.get(name)
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and value >= 0
        ):
            draft.image[key] = float(value) if key == "guidance" else int(value)
    scripts = data.get("alwayson_scripts")
    script = scripts.get("Regional Prompter") if isinstance(scripts, Mapping) else None
    given = script.get("args") if isinstance(script, Mapping) else None
    said = list(given) if isinstance(given, list) else []
    said += [None] * (20 - len(said))
    pairs = {} if not any(said) else {
        "RP Active": str(said[0]), "RP Divide mode": str(said[2]), "RP Matrix submode": str(said[3]),
        "RP Ratios": str(said[6] or ""), "RP Base Ratios": str(said[7] or ""), "RP Use Base": str(said[8]),
        "RP Use Common": str(said[9]), "RP Flip": str(said[19]),
    }  # fmt: skip
    negative = data.get("negative_prompt")
    settings = _settings(pairs, source)
    prompt = str(data["prompt"])
    return divide(draft, prompt, negative if isinstance(negative, str) else "", settings, source, wishes)


def _settings(pairs: Mapping[str, str], source: str) -> Settings:
    """What AUTOMATIC1111 notes of the extension's panel. Raises CidmError INVALID for regions that were painted."""
    mode, matrix = pairs.get("RP Divide mode", "Matrix"), pairs.get("RP Matrix submode", "Columns")
    if mode in ("Horizontal", "Vertical"):
        # Before it had other modes, the extension kept here what is the matrix's submode now.
        mode, matrix = "Matrix", mode
    if mode not in ("Matrix", "") or matrix == "Random":
        shown = f"{mode} {matrix}" if mode == "Matrix" else mode
        raise refused(
            source, f"its regions are those of the mode {shown[:40]!r}, which the text does not hold"
        )
    return Settings(
        ratio=pairs.get("RP Ratios", ""),
        rows=matrix in ("Rows", "Vertical"),
        base=pairs.get("RP Use Base") == "True",
        common=pairs.get("RP Use Common") == "True",
        base_ratio=pairs.get("RP Base Ratios", ""),
        flip=pairs.get("RP Flip") == "True",
        active=pairs.get("RP Active", "True") == "True",
    )


def _pairs(text: str) -> dict[str, str]:
    """`Steps: 20, Sampler: Euler a, RP Ratios: "1,1"` as a table."""
    found = {}
    for match in _PAIR.finditer(text):
        value = match[2].strip()
        if value.startswith('"'):
            value = value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
        found[match[1].strip()] = value
    return found


def _image(pairs: Mapping[str, str], draft: Draft) -> dict[str, Any]:
    """Keys of `[image]` that AUTOMATIC1111's line of settings says."""
    image: dict[str, Any] = {}
    if match := re.fullmatch(r"(\d{1,5})x(\d{1,5})", pairs.get("Size", "")):
        image["size"] = (int(match[1]), int(match[2]))
    for key, name in (("seed", "Seed"), ("steps", "Steps")):
        if re.fullmatch(r"\d{1,20}", pairs.get(name, "")):
            image[key] = int(pairs[name])
    if re.fullmatch(r"\d{1,4}(\.\d{1,6})?", pairs.get("CFG scale", "")):
        image["guidance"] = float(pairs["CFG scale"])
    for name in ("Model", "Sampler", "Hires upscale", "Denoising strength"):
        if name in pairs:
            draft.note(f"{name} {pairs[name][:60]}: a layout has no such setting")
    return image
