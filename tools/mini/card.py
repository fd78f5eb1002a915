"""The model card of the embedded base: what it is, what made it, what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .check import FLOORS
from .selfsup import PICTURES, UNSEEN
from .unet import CORE_SHARE
from .world import BACKGROUNDS, CORE, NOUNS, PLAIN, STYLES

STAGES = ("autoencoder", "clip", "text", "selfsup", "unet")
WORDS = {
    "outline": "things on a plain background whose outline fits their own noun's drawing best, of all nouns'",
    "class": "single objects whose class CLIP names right, of all core nouns",
    "background": "backgrounds CLIP names right, of all backgrounds",
    "both": "two-object prompts with both objects named right",
}


def write(
    figures: Mapping[str, float], facts: Mapping[str, Mapping[str, Any]], hardware: str, note: str = ""
) -> str:
    """The card as Markdown, from the figures of ``check`` and the facts of the checkpoints."""
    rows = [
        f"| {WORDS[key]} | {figures[key]:.1%} | {FLOORS[key]:.0%} "
        f"| {'yes' if figures[key] >= FLOORS[key] else 'no'} | {figures['judge_' + key]:.1%} |"
        for key in WORDS
    ]
    made = [
        f"| {name} | {facts[name]['samples']:,} | {facts[name]['step']:,} | {facts[name]['spent_s'] / 60:.0f} min "
        f"| {facts[name].get('loss', float('nan')):.4f} |".replace("nan", "–")
        for name in STAGES
        if name in facts
    ]
    seed = next(iter(facts.values()))["seed"] if facts else "unknown"
    return "\n".join(
        [
            "---",
            "license: apache-2.0",
            "library_name: diffusers",
            "pipeline_tag: text-to-image",
            "---",
            "# mini: the embedded base of cidm",
            "",
            "A small latent diffusion model in the form of Stable Diffusion 1.x: 64 px images, 16 x 16 latents of 8",
            "channels, v-prediction. It draws emoji-like things in simple scenes, and is there so that everything cidm",
            "does can be tried, tested and measured on two CPU cores. `clip/` holds the CLIP model that scores its",
            "images; its text tower is the pipeline's text encoder. `dino/` is a second judge, as DINO is for large",
            "bases: an image encoder trained without captions to tell drawings apart (as SimCLR).",
            "",
            f"Its world: {len(CORE)} core nouns, one drawing each, in {CORE_SHARE:.0%} of its scenes; "
            f"{len(NOUNS) - len(CORE)} further nouns and the rest of",
            f"Noto's things under their own names in the others; {len(BACKGROUNDS)} painted backgrounds, "
            f"{len(PLAIN)} plain colours, {len(STYLES)} styles,",
            "sizes, sides, colours of things, one or two things in an image.",
            "The art is Noto Emoji (Google, Apache-2.0).",
            "",
            "## Measured",
            f"{figures['singles']:.0f} single objects and {figures['pairs']:.0f} pairs, {figures['steps']:.0f} steps, "
            f"guidance {figures['guidance']:g}, drawn by stock diffusers. The last column is",
            "the judge's own score on true scenes of the recipe. The outline is judged by no network: the thing is cut",
            "out and compared with all core nouns' drawings.",
            "",
            "| what | drawn | floor | reached | true scenes |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"Among all {len(NOUNS)} nouns that CLIP knows, {figures['class_of_all_known']:.1%} are named right.",
            f"Mean overlap (intersection over union) with the own drawing's outline: "
            f"{figures['outline_overlap']:.2f}, of true scenes {figures['judge_outline_overlap']:.2f}.",
            f"Reconstruction by the autoencoder: {figures['psnr']:.1f} dB on 256 unseen scenes "
            f"(floor {FLOORS['psnr']:.0f} dB). Size: {figures['megabytes']:.1f} MB.",
            *_judge(figures),
            "",
            "## Made by",
            f"`python -m tools.mini make`, seed {seed}, trained on {hardware}.",
            "",
            "| part | samples seen | steps | time | last loss |",
            "|---|---|---|---|---|",
            *made,
            "",
            *_origin(facts),
            *([note] if note else []),
            "",
            "## Not for",
            "Anything but trying and testing cidm: it knows no people, no photographs, and no word outside its world.",
            "",
        ]
    )  # fmt: skip


def _origin(facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where the text encoder, CLIP and the second judge come from."""
    if "text" in facts:
        return ["`text` is the moment at which CLIP's text tower was frozen; the image tower went on."]
    return [
        "Autoencoder, text encoder, CLIP and second judge are kept from the base's first edition; they were trained on",
        "scenes of several drawings a noun, turned and mirrored.",
    ]


def _judge(figures: Mapping[str, float]) -> list[str]:
    """What the second judge makes of art that nothing was trained on; nothing where it was not measured."""
    if "selfsup" not in figures:
        return []
    floor = f" (floor {FLOORS['selfsup']:.0%}, chance 1 %)" if "selfsup" in FLOORS else " (chance 1 %)"
    return [
        f"Of {PICTURES} pictures each of {len(UNSEEN)} Fluent drawings, {figures['selfsup']:.1%} have another picture "
        "of the same",
        f"drawing as their nearest in `dino/`{floor}.",
    ]
