"""``python -m tools.mini``: makes the embedded base from the art, or checks it.

Every stage resumes from its checkpoint in the work folder and stops when its share of the time is spent. The order
is autoencoder, CLIP (its text tower is frozen half way), denoiser, sharper decoder, self-supervised judge, pack, check,
model card. ``judge`` trains and packs the self-supervised judge alone and leaves everything else as it is.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch
from transformers import CLIPModel

from . import autoencoder, card, check, clip, pack, scenes, selfsup, unet, vocabulary
from .training import load_checkpoint

#: Seconds of each stage: a first look, half a night on two cores, a night. ``core`` is when the denoiser turns to
#: the core nouns.
PRESETS = {
    "quick": {
        "autoencoder": 60, "text": 40, "clip": 80, "unet": 240, "core": 240, "decoder": 0, "selfsup": 30,
    },
    "short": {
        "autoencoder": 1200, "text": 720, "clip": 2990, "unet": 11500, "core": 4195, "decoder": 0, "selfsup": 600,
    },
    "full": {
        "autoencoder": 3600, "text": 2400, "clip": 6000, "unet": 28000, "core": 28000, "decoder": 2400,
        "selfsup": 3000,
    },
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.mini", description=__doc__)
    parser.add_argument("do", choices=("make", "judge", "check"))
    parser.add_argument(
        "--noto", type=Path, required=True, help="unpacked npm package emoji-datasource-google"
    )
    parser.add_argument(
        "--fluent",
        type=Path,
        help="unpacked npm package @lobehub/fluent-emoji-3d: art that nothing is trained on, to check the judge with",
    )
    parser.add_argument("--work", type=Path, default=Path("mini-work"), help="checkpoints")
    parser.add_argument("--out", type=Path, default=Path("cidm_cli/bases/mini"), help="the diffusers folder")
    parser.add_argument("--preset", choices=PRESETS, default="short")
    parser.add_argument(
        "--unet-seconds", type=float, help="more or less time for the denoiser than the preset's"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--singles", type=int, default=384, help="pictures of one object to judge")
    parser.add_argument("--pairs", type=int, default=128, help="pictures of two objects to judge")
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    art = scenes.load_art(given.noto)
    if given.do == "judge":
        judge(given, art)
        print(json.dumps(check.check_judge(given.out, given.fluent) if given.fluent else {}))
        return
    if given.do == "make":
        make(given, art)
    figures = check.check(
        given.out, art, singles=given.singles, pairs=given.pairs, guidance=given.guidance, steps=given.steps
    )
    if given.fluent:
        figures |= check.check_judge(given.out, given.fluent)
    passed = {name: figures[name] >= floor for name, floor in check.FLOORS.items() if name in figures}
    passed["megabytes"] = figures["megabytes"] <= 40
    if given.work.exists():
        facts = {n: f[1] for n in card.STAGES if (f := load_checkpoint(given.work / f"{n}.safetensors"))}
        hardware = f"{given.threads} CPU cores ({platform.machine()}), torch {torch.__version__}"
        (given.out / "README.md").write_text(card.write(figures, facts, hardware))
    print(json.dumps({**figures, "passed": passed}))


def make(given: argparse.Namespace, art: scenes.Art) -> None:
    """Trains whatever is not trained yet, and packs it."""
    seconds = PRESETS[given.preset]
    work, seed = given.work, given.seed
    tokenizer, others = vocabulary.build(), scenes.load_others(given.noto)
    autoencoder.train(art, work, budget_s=seconds["autoencoder"], seed=seed)
    if not (work / "text.safetensors").exists():
        clip.train(art, others, tokenizer, work, budget_s=seconds["clip"], stop_s=seconds["text"], seed=seed)
        clip.freeze_text(work)
    clip.train(art, others, tokenizer, work, budget_s=seconds["clip"], seed=seed)
    vae = pack.load_autoencoder(work, first_stage=True)
    norm = unet.latent_scale(art, vae, seed)
    vae.register_to_config(scaling_factor=norm[0], shift_factor=norm[1])
    towers: CLIPModel = pack.load_clip(work, tokenizer)
    budget = given.unet_seconds or seconds["unet"]
    core = seconds["core"] * budget / seconds["unet"]
    unet.train(art, vae, towers, tokenizer, work, budget_s=budget, core_s=core, seed=seed)
    if seconds["decoder"]:
        autoencoder.train(art, work, budget_s=seconds["decoder"], seed=seed, decoder_only=True)
    selfsup.train(art, others, work, budget_s=seconds["selfsup"], seed=seed)
    # A fresh tokenizer: one that was used keeps the padding of its last call.
    pack.pack(work, given.out, vocabulary.build(), norm)


def judge(given: argparse.Namespace, art: scenes.Art) -> None:
    """Trains the self-supervised judge, if it is not trained yet, and packs it alone."""
    seconds = PRESETS[given.preset]["selfsup"]
    selfsup.train(art, scenes.load_others(given.noto), given.work, budget_s=seconds, seed=given.seed)
    pack.pack_judge(pack.load_judge(given.work), given.out)


if __name__ == "__main__":
    main()
