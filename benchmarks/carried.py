"""What a user carries away: exported and merged files, drawn by stock diffusers. Prints one JSON object.

mini-CIFC's concepts, learned with tokens of their own for each layer, whose mean an embedding file holds, and with
tokens shared by all layers (``--portable``), which it holds exactly. ``rows``: the base, the tokens alone and the
concepts by name, drawn here; each concept's own exported LoRA and embedding, and one merged file of all with their
embeddings, drawn by a diffusers pipeline that knows nothing of this program. Equal prompts and seeds throughout.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load

from cidm_cli.bases import family
from cidm_cli.formats.diffusers_lora import pack_diffusers
from cidm_cli.judge.concepts import judged, look_at_references
from cidm_cli.judge.subjects import Subject, match
from cidm_cli.machine.session import Listener
from cidm_cli.models.opening import open_base
from cidm_cli.models.sampling import initial_noise
from cidm_cli.options.merge import MergeOptions
from cidm_cli.share import merge
from cidm_cli.share.pipeline import pipeline
from cidm_cli.share.selection import Selection
from cidm_registry import Record, Registry

from . import figures
from .continual import DEFAULT, ROWS, SHARED, TOKENS, Pass, learned, made, whole
from .lab import Lab, add_arguments, ending, say, told
from .pictures import looked_at
from .sets import JUDGE

WAYS = {"cidm": "averaged tokens", "shared-tokens": "--portable"}
"""Ways of learning, and what an embedding file then holds."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(JUDGE.trainings))
    parser.add_argument("--tasks", type=int, help="only the first so many of each order")
    parser.add_argument("--merge", default="fuse", help="method of the merged file")
    given = parser.parse_args()
    lab = Lab(given.work)
    runs = [whole(JUDGE, seed, given) for seed in given.seeds]
    by_name = {row.name: row for row in ROWS}
    here = {DEFAULT: DEFAULT, "cidm, --portable": SHARED, TOKENS: "cidm, tokens only"}
    found = {title: [made(lab, by_name[name], run) for run in runs] for title, name in here.items()}
    for training, title in WAYS.items():
        for file in ("exported", f"merged by {given.merge}"):
            way = f"{file}, {title}"
            found[way] = [
                carried(lab, training, run, None if file == "exported" else given.merge, base)
                for run, base in zip(runs, found[DEFAULT], strict=True)
            ]
    table = figures.table(found, named=DEFAULT, tokens=TOKENS)
    print(json.dumps({"protocol": {**told(given), "set": JUDGE.name, "seeds": given.seeds}, "rows": table}))


def carried(lab: Lab, training: str, run: Pass, method: str | None, own: dict[str, Any]) -> dict[str, Any]:
    """Figures of every concept's own file, or of all in one; in the form of an evaluation.

    Args:
        method: of merging; None for each concept's own export.
        own: the evaluation that has what the base draws of the same prompts.
    """
    name = f"carried-{method or 'export'}-{training}-{run.judged}"
    path = lab.folder / "results" / f"{name}.json"
    if not path.exists():
        registry = learned(lab, training, run)
        records = [
            record for record in registry.records() if record.name in {task.name for task in run.tasks}
        ]
        subjects, _ = match(records, run.tasks, limit=run.judging.limit_prompts)
        references = look_at_references(lab.judges, {one.record.key: one for one in subjects}, Listener())
        base = {concept["key"]: concept["base"] for concept in own["concepts"]}
        pictures = stock(lab, registry, records, subjects, run, method)
        concepts = []
        for subject, drawn in zip(subjects, pictures, strict=True):
            cell = judged(lab.judges, subject, references, looked_at(lab.judges, drawn))
            key = subject.record.key
            concepts.append({
                "key": key, "base": base[key], "states": {"0": asdict(cell)},
                "forgetting": dict.fromkeys(cell.ia),
            })  # fmt: skip
        lab.keep(name, {"concepts": concepts})
    kept: dict[str, Any] = json.loads(path.read_text())
    return kept


def stock(
    lab: Lab,
    registry: Registry,
    records: Sequence[Record],
    subjects: Sequence[Subject],
    run: Pass,
    method: str | None,
) -> list[list[Image.Image]]:
    """Pictures of each concept, prompt by prompt, by a stock pipeline with nothing but files loaded."""
    base = open_base(registry, device=lab.device, precision=lab.precision)
    adapters = {record.key: record.key for record in records}
    packed = None
    if method is not None:
        selection = Selection(tuple(records), (1.0,) * len(records), None, MergeOptions(method=method))  # type: ignore[arg-type]
        found = merge.merge(registry, base, selection)
        packed = pack_diffusers(found.factors, 1.0, frozenset(), "unet.", found.facts)
        adapters = dict.fromkeys(adapters, "merged")
    draw = run.judging.draw
    seeds = [draw["seed"] + number for number in range(run.judging.samples)]
    noise = initial_noise(base, seeds, (base.pixels, base.pixels))
    guidance = draw.get("guidance") or family(registry.base.kind).draw["guidance"]
    pipe = pipeline(registry, base, records, say)
    pipe.set_progress_bar_config(disable=True)
    if packed is not None:
        pipe.load_lora_weights(load(packed), adapter_name="merged", use_safetensors=True)
    out = []
    for subject in subjects:
        pipe.set_adapters([adapters[subject.record.key]])
        images: list[Image.Image] = []
        for prompt in subject.named:
            with torch.no_grad():
                images += pipe(
                    [prompt] * len(seeds),
                    latents=noise,
                    num_inference_steps=draw["steps"],
                    guidance_scale=guidance,
                ).images
        out.append(images)
    return out


if __name__ == "__main__":
    ending(main)
