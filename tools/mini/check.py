"""Measures the packed base: does it draw what it is asked for, does its autoencoder keep pictures as they are?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image
from transformers import AutoModel, CLIPModel, CLIPTokenizer

from . import outline, selfsup
from .autoencoder import pixels, psnr
from .clip import PART_CENTRES, name_backgrounds, name_classes, part
from .painters import paint_background
from .scenes import OUTLINES, VARIETY, Art, background_phrase, paste_object, render
from .world import BACKGROUNDS, CORE, PLAIN, article

PLACES = (*BACKGROUNDS, *PLAIN)
PLAINLY = replace(VARIETY, tinted=0.0)
"""True scenes are compared in the drawings' own colours: the prompts that are judged name none."""
PLAIN_EACH = 4
"""Images of each core noun on its clearest background, for the outline."""
UNSEEN = 77  # a scene stream that no training reads
FLOORS = {
    "outline": 0.85, "class": 0.97, "background": 0.95, "both": 0.85, "psnr": 28.0, "selfsup": 0.70,
}  # fmt: skip
MEGABYTES = 60


def a(noun: str) -> str:
    """ "a dog", "an owl", "grapes"."""
    return f"{article(noun)} {noun}".strip()


def check(
    folder: Path, art: Art, *, singles: int, pairs: int, guidance: float, steps: int
) -> dict[str, float]:
    """Draws with the stock pipeline and lets the base's own CLIP judge; the judge is judged on true scenes first.

    Returns:
        class, background, both: shares of samples named right, the class among the core nouns;
        class_of_all_known: the same samples' class among all nouns CLIP knows;
        outline, outline_overlap: of things on plain backgrounds, the share whose outline fits that of the noun's own
        drawing best of all core nouns', and the mean intersection over union with it; no network judges this;
        judge_class, judge_background, judge_both, judge_outline, judge_outline_overlap: the same for true scenes;
        psnr: dB over 256 unseen scenes; megabytes: size of the folder.
    """
    pipe = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True, safety_checker=None)
    pipe.to(torch.float32).set_progress_bar_config(disable=True)
    clip = CLIPModel.from_pretrained(folder / "clip", dtype=torch.float32).eval()
    nouns = list(CORE)
    rng = np.random.default_rng(5)
    wanted = [(nouns[k % len(nouns)], PLACES[rng.integers(len(PLACES))]) for k in range(singles)]
    drawn = draw(pipe, [f"a photo of {a(n)} {background_phrase(b)}" for n, b in wanted], guidance, steps)
    named = judge_singles(clip, pipe.tokenizer, pixels(drawn), wanted, nouns)
    named["class_of_all_known"] = judge_singles(clip, pipe.tokenizer, pixels(drawn), wanted, list(art))[
        "class"
    ]
    couples = [tuple(nouns[i] for i in rng.choice(len(nouns), 2, replace=False)) for _ in range(pairs)]
    both = draw(pipe, [f"a photo of {a(x)} and {a(y)}" for x, y in couples], guidance, steps)
    named["both"] = judge_pairs(clip, pipe.tokenizer, both, couples, nouns)
    core = {noun: art[noun] for noun in CORE}
    plain = [(noun, outline.clearest_background(core[noun])) for noun in CORE for _ in range(PLAIN_EACH)]
    shown = draw(pipe, [f"a photo of {a(n)} {background_phrase(b)}" for n, b in plain], guidance, steps)
    named |= judge_outlines(shown, [n for n, _ in plain], core)
    pasted = [on_plain(core[noun], background, k) for k, (noun, background) in enumerate(plain)]
    scenes = [render(core, UNSEEN, i, kind="single", manner=PLAINLY) for i in range(3 * singles)]
    true = [s for s in scenes if s.style == "photo"][:singles]
    known = judge_singles(
        clip,
        pipe.tokenizer,
        pixels([s.image for s in true]),
        [(s.nouns[0], s.background) for s in true],
        nouns,
    )
    true_pairs = [
        s
        for i in range(3 * pairs)
        if (s := render(core, UNSEEN, i, kind="pair", manner=PLAINLY)).style == "photo"
    ][:pairs]
    known["both"] = judge_pairs(
        clip, pipe.tokenizer, [s.image for s in true_pairs], [s.nouns for s in true_pairs], nouns
    )
    known |= judge_outlines(pasted, [n for n, _ in plain], core)
    vae: AutoencoderKL = pipe.vae
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6
    return {
        **named,
        **{f"judge_{key}": value for key, value in known.items()},
        "psnr": psnr(vae, pixels([render(art, UNSEEN, i).image for i in range(256)])),
        "megabytes": size,
        "singles": singles, "pairs": pairs, "guidance": guidance, "steps": steps,
    }  # fmt: skip


def judge_outlines(images: list[Image.Image], nouns: list[str], drawings: Art) -> dict[str, float]:
    """Of things on plain backgrounds: share whose own noun's outline fits best, and the mean overlap with it."""
    shapes = {noun: [outline.scaled(outline.shape_of(sprite))] for noun, sprite in drawings.items()}
    found = [outline.fits(image, shapes) for image in images]
    best = [max(fit, key=fit.__getitem__) == noun for fit, noun in zip(found, nouns, strict=True)]
    own = [fit[noun] for fit, noun in zip(found, nouns, strict=True)]
    return {"outline": sum(best) / len(best), "outline_overlap": sum(own) / len(own)}


def on_plain(sprite: Image.Image, background: str, seed: int) -> Image.Image:
    """The drawing itself on a plain background, laid out as the recipe does it."""
    rng = np.random.default_rng((UNSEEN, seed))
    canvas = paint_background(background, rng, 64)
    centre = (rng.uniform(0.45, 0.55), rng.uniform(0.48, 0.58))
    paste_object(canvas, sprite, scale=rng.uniform(*OUTLINES.sizes), centre=centre)
    return canvas


def check_judge(folder: Path, fluent: Path) -> dict[str, float]:
    """selfsup: share of pictures of unseen Fluent drawings whose nearest other picture shows the same drawing."""
    return {"selfsup": selfsup.told_apart(AutoModel.from_pretrained(folder / "dino").eval(), fluent)}


def draw(pipe: StableDiffusionPipeline, prompts: list[str], guidance: float, steps: int) -> list[Image.Image]:
    """One picture a prompt; picture k is drawn from seed k."""
    out: list[Image.Image] = []
    for start in range(0, len(prompts), 16):
        part = prompts[start : start + 16]
        seeds = [torch.Generator().manual_seed(start + k) for k in range(len(part))]
        out += pipe(part, num_inference_steps=steps, guidance_scale=guidance, generator=seeds).images
    return out


def judge_singles(
    clip: CLIPModel,
    tokenizer: CLIPTokenizer,
    images: torch.Tensor,
    wanted: list[tuple[str, str]],
    nouns: list[str],
) -> dict[str, float]:
    """Shares whose class, among all classes, and background, among all backgrounds, CLIP names right."""
    classes = name_classes(clip, tokenizer, images, nouns).argmax(1).tolist()
    right = [nouns[c] == noun for c, (noun, _) in zip(classes, wanted, strict=True)]
    places = [
        PLACES[int(name_backgrounds(clip, tokenizer, images[i : i + 1], noun).argmax())] == place
        for i, (noun, place) in enumerate(wanted)
    ]
    return {"class": sum(right) / len(right), "background": sum(places) / len(places)}


def judge_pairs(
    clip: CLIPModel,
    tokenizer: CLIPTokenizer,
    images: list[Image.Image],
    couples: list[tuple[str, ...]],
    nouns: list[str],
) -> float:
    """Share of pictures in which CLIP, looking at the left and at the right part alone, names both among all classes.

    The world draws "X and Y" with X on the left; each part is a square of 0.58 of the side.
    """
    right = 0
    halves = [[part(image, x) for x in PART_CENTRES] for image in images]
    seen = (
        name_classes(clip, tokenizer, pixels([half for pair in halves for half in pair]), nouns)
        .argmax(1)
        .view(-1, 2)
    )
    for found, couple in zip(seen.tolist(), couples, strict=True):
        right += tuple(nouns[i] for i in found) == tuple(couple)
    return right / len(couples)
