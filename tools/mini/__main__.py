"""``python -m tools.mini``: makes the embedded base from the art, or checks it.

Every stage resumes from its checkpoint in the work folder and ends at its preset's number of steps; a larger number
goes on from there. The order is autoencoder, CLIP (its text tower is frozen on the way), self-supervised judge,
denoiser, pack, check, model card. ``--keep FOLDER`` keeps all parts of an earlier base but the denoiser. ``judge``
trains and packs the self-supervised judge alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from . import autoencoder, card, check, clip, pack, scenes, selfsup, unet, vocabulary
from .training import load_checkpoint


@dataclass(frozen=True)
class Preset:
    """Steps of each stage."""

    autoencoder: int
    text: int
    """CLIP's step at which its text tower is frozen for the denoiser"""
    clip: int
    selfsup: int
    unet: int
    batch: int = 64
    """Scenes in a step of the denoiser"""
    chunks: int = 16
    """Stretches of 4,096 scenes in each half of its training"""


#: A first look in minutes; two cores, in hours; one large GPU, in ten minutes (with --keep, which spares the rest).
PRESETS = {
    "quick": Preset(autoencoder=60, text=40, clip=80, selfsup=60, unet=60, chunks=1),
    "cpu": Preset(autoencoder=3500, text=720, clip=3000, selfsup=2050, unet=6800, batch=96),
    "gpu": Preset(autoencoder=3500, text=720, clip=3000, selfsup=2050, unet=9000, batch=512, chunks=48),
}


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
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--unet-steps", type=int, help="other than the preset's")
    parser.add_argument(
        "--keep", type=Path, help="an earlier base's folder, to keep all its parts but the denoiser"
    )
    parser.add_argument("--mean", type=Path, help="an earlier base of the same training, to average with")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu, cuda")
    parser.add_argument("--crew", type=int, default=0, help="processes that render scenes beside this one")
    parser.add_argument(
        "--shard", metavar="SIZE", help="split the denoiser's weights into files of at most, say, 15MB"
    )
    parser.add_argument("--note", default="", help="a sentence for the card, about how it was trained")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--singles", type=int, default=384, help="pictures of one object to judge")
    parser.add_argument("--pairs", type=int, default=128, help="pictures of two objects to judge")
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if "RANK" in os.environ:  # torchrun
        dist.init_process_group("gloo" if given.device.type == "cpu" else "nccl")
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
    passed["megabytes"] = figures["megabytes"] <= check.MEGABYTES
    if given.work.exists():
        facts = {n: f[1] for n in card.STAGES if (f := load_checkpoint(given.work / f"{n}.safetensors"))}
        hardware = f"{given.threads} CPU cores ({platform.machine()}), torch {torch.__version__}"
        (given.out / "README.md").write_text(card.write(figures, facts, hardware, given.note))
    print(json.dumps({**figures, "passed": passed}))


def make(given: argparse.Namespace, art: scenes.Art) -> None:
    """Trains whatever is not trained yet, and packs it."""
    plan: Preset = PRESETS[given.preset]
    work, seed, keep, device = given.work, given.seed, given.keep, given.device
    # A fresh tokenizer for the pack: one that was used keeps the padding of its last call.
    tokenizer, others = vocabulary.build(), scenes.load_others(given.noto)
    if not keep:
        autoencoder.train(art, work, steps=plan.autoencoder, seed=seed, device=device)
        if not (work / "text.safetensors").exists():
            clip.train(art, others, tokenizer, work, steps=plan.clip, stop=plan.text, seed=seed)
            clip.freeze_text(work)
        clip.train(art, others, tokenizer, work, steps=plan.clip, seed=seed)
        selfsup.train(art, others, work, steps=plan.selfsup, seed=seed)
    parts = pack.load_parts(work, tokenizer, keep)
    if not keep:
        unet.normalise(art, parts.vae, seed)
    with ProcessPoolExecutor(given.crew) if given.crew else nullcontext() as crew:
        unet.train(
            art, others, parts.vae, pack.text_encoder(parts.clip), tokenizer, work,
            steps=given.unet_steps or plan.unet, batch=plan.batch, chunks=plan.chunks,
            seed=seed, device=device, crew=crew,
        )  # fmt: skip
    if dist.is_initialized() and dist.get_rank():
        raise SystemExit  # the first process packs and checks
    pack.pack(work, given.out, vocabulary.build(), parts, shard=given.shard, mean=given.mean)


def judge(given: argparse.Namespace, art: scenes.Art) -> None:
    """Trains the self-supervised judge, if it is not trained yet, and packs it alone."""
    steps = PRESETS[given.preset].selfsup
    selfsup.train(art, scenes.load_others(given.noto), given.work, steps=steps, seed=given.seed)
    pack.pack_judge(pack.load_judge(given.work), given.out)


if __name__ == "__main__":
    main()
