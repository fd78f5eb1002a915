"""What merges that look at features hold: dense least squares (fuse) beside rank-space. Prints one JSON object.

``embedded``: for K concepts of random weights on the embedded base, the ``seconds`` of looking at their features, and
``held``, the bytes of everything gathered at its end. ``sd15`` and ``sdxl``: the same bytes, counted from the shapes
of those bases' attention to text; ``peak``: with the Gram matrices of the concept that is being looked at.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from cidm_cli.draw.mixtures import Loader
from cidm_cli.models.attention import lora_sites
from cidm_cli.models.features import feature_source
from cidm_cli.models.identity import MINI, identify
from cidm_cli.models.opening import open_base
from cidm_cli.options.merge import LOOKING, MergeOptions
from cidm_cli.share.features import gather
from cidm_registry import Registry

from .aggregation_cost import fill
from .consolidation_cost import UNETS

RANK = 4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=["embedded", *UNETS], default=["embedded", *UNETS])
    parser.add_argument("--concepts", type=int, nargs="*", default=[3, 10, 30, 100])
    parser.add_argument("--steps", type=int, default=10, help="denoising steps of what is looked at")
    given = parser.parse_args()
    report: dict[str, Any] = {}
    for part in given.parts:
        if part == "embedded":
            with tempfile.TemporaryDirectory() as scratch:
                report[part] = embedded(Path(scratch), given)
        else:
            report[part] = {str(count): published(part, count) for count in given.concepts}
    print(json.dumps(report | {"rank": RANK, "threads": torch.get_num_threads()}))


def embedded(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """By number of concepts and method."""
    registry = Registry.create(folder / "registry", identify(MINI))
    base = open_base(registry, device="auto", precision="auto")
    fill(registry, base, max(given.concepts))
    out: dict[str, Any] = {}
    for count in given.concepts:
        records = tuple(registry.records()[:count])
        weights = (1.0,) * count
        for method in LOOKING:
            options = MergeOptions(method=method, steps=given.steps)
            began = time.perf_counter()
            found = gather(base, Loader(registry, base), records, weights, options, MINI, lambda: None)
            seconds = time.perf_counter() - began
            kept = [*found.grams.values(), *found.regular.values(), *found.axes.values()]
            for by_site in (found.seen, found.downs, found.ups):
                kept += itertools.chain.from_iterable(by_site.values())
            held = sum(t.numel() * t.element_size() for t in kept if t is not None)
            out.setdefault(str(count), {})[method] = {"seconds": seconds, "held": held}
    return out


def published(name: str, count: int) -> dict[str, dict[str, int]]:
    """Bytes by method: Gram matrices k × k in float64, axes, S_i, and the concepts' own factors in float32."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNETS[name])
    sites = lora_sites(unet)
    shapes = {site: unet.get_submodule(site).weight.shape[:2] for site in sites}
    factors = sum(4 * count * RANK * (height + width) for height, width in shapes.values())
    dense = [shapes[site][1] for site in dict.fromkeys(map(feature_source, sites))]
    narrow = [min(count * RANK, width) for _, width in shapes.values()]
    axes = sum(8 * k * width for k, (_, width) in zip(narrow, shapes.values(), strict=True))
    seen = {
        "fuse": sum(8 * count * RANK * width for _, width in shapes.values()),
        "rank-space": sum(8 * count * RANK * k for k in narrow),
    }
    sides, extra = {"fuse": dense, "rank-space": narrow}, {"fuse": 0, "rank-space": axes}
    out = {}
    for method, each in sides.items():
        grams = sum(8 * k * k for k in each)
        held = 2 * grams + extra[method] + seen[method] + factors
        out[method] = {"grams": grams, "held": held, "peak": held + grams}
    return out


if __name__ == "__main__":
    main()
