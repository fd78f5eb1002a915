"""Is a learned object told apart from the base's idea of its class and from every other concept?

Learns mini-CIFC's objects, draws each in scenes its pictures never showed, and asks the base's CLIP image tower
what each sample is nearest to, by mean cosine: the concept's own pictures, what the base draws for the same captions
with the class noun, or the pictures of another concept. All three show the same backgrounds, so that backgrounds
decide nothing; the styles' pictures are references too.

Beside CLIP a judge that is no network: each concept is drawn on plain backgrounds that its images never had, cut out,
and its outline compared with those of all objects, as their own plain images show them.

The styles are learned too, and draw the base's nouns that their images do not show, each on a plain background: is the
outline still the noun's, among all nouns', and does CLIP's image tower find the image more like the true one in that
style than like the base's photo? Beside it stand the same figures of the true images and of the base's photos. (CLIP is
not asked for the noun: of true images in these styles it names 7 to 54 % right.) Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cidm_cli import Workspace
from cidm_cli.data import load_examples
from cidm_cli.judge.tasks import Task, load_tasks, tasks_folder
from cidm_cli.models.clip import Judge
from cidm_cli.models.identity import mini_folder
from cidm_cli.options.learn import WatchOptions
from tools.mini.concepts import FILTERS, SEAL, SIZE, compose
from tools.mini.concepts import SCENES as VIEWED
from tools.mini.outline import clearest_background, cut_out, fits, scaled, shape_of
from tools.mini.scenes import Art, background_phrase, load_art
from tools.mini.world import CORE, NOUNS, PLAIN, article

#: In none of the objects' pictures.
SCENES = (
    "a photo of a {} in the forest",
    "a photo of a {} in the snow",
    "a photo of a {} at night",
    "a photo of a {} in the city",
    "a photo of a {} in the desert",
    "a photo of a {} in the mountains",
    "a photo of a {} at sunset",
    "a photo of a {} on a red background",
)

#: Plain backgrounds of no object's images, for the outline.
PLAIN_SCENES = tuple(
    f"a photo of a {{}} on {article(colour)} {colour} background"
    for colour in PLAIN
    if colour not in ("white", "blue", "pink")
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=32, help="samples of each concept")
    parser.add_argument("--steps", type=int, help="training steps, else the base's default")
    parser.add_argument("--lr", type=float, help="learning rate, else the base's default")
    parser.add_argument("--token-lr", type=float, help="token learning rate, else the base's default")
    parser.add_argument("--guidance", type=float, help="guidance, else the base's default")
    parser.add_argument("--rank", type=int, help="rank, else the base's default")
    parser.add_argument("--targets", help="layers with low-rank weights, else the base's default")
    parser.add_argument(
        "--tasks", type=Path, default=tasks_folder(), help="another set, such as the tuning set of tools/mini"
    )
    parser.add_argument(
        "--noto", type=Path, help="unpacked npm package emoji-datasource-google, to judge styles with"
    )
    parser.add_argument("--only", nargs="*", help="learn these concepts only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, help="folder for the registry and the samples, else a temporary one"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(given, given.keep or Path(scratch))))


def measure(given: argparse.Namespace, folder: Path) -> dict[str, object]:
    """The table, as one object."""
    tasks = load_tasks(given.tasks)
    wanted = [task for task in tasks if not given.only or task.name in given.only]
    objects = [task for task in wanted if not task.style]
    styles = [task for task in wanted if task.style]
    if styles and not given.noto:
        raise SystemExit(
            "styles are judged by the base's own drawings: give --noto, or name objects with --only"
        )
    workspace = Workspace.create(folder / "registry")
    said = {name: getattr(given, name) for name in ("steps", "lr", "token_lr", "rank", "targets", "seed")}
    for task in wanted:
        record = workspace.learn(
            task.name, task.images, noun=task.class_noun, style=task.style, cache=False,
            watch=WatchOptions(preview_image=False), **said,
        )  # fmt: skip
        print(f"learned {task.name}, loss {record.losses['last_tenth']:.4f}", file=sys.stderr, flush=True)
    judge = Judge(mini_folder() / "clip", tokenizer=mini_folder() / "tokenizer")

    def drawn(prompts: list[str], each: int) -> list[Image.Image]:
        drawn = workspace.generate(*prompts, count=each, batch=8, guidance=given.guidance, seed=1000)
        images = [picture.image for picture in drawn]
        if given.keep:
            target = folder / "samples"
            target.mkdir(exist_ok=True)
            for number, image in enumerate(images):
                image.save(
                    target
                    / f"{prompts[0].replace(' ', '-').replace('<', '').replace('>', '')}-{number:02d}.png"
                )
        return images

    own = {t.name: judge.embed([e.image for e in examples(t)]) for t in tasks}
    ideas = {t.name: judge.embed(drawn([e.caption for e in examples(t)], 4)) for t in objects}
    shapes = {t.name: outlines(t) for t in tasks if not t.style}
    table = {}
    for task in objects:
        each = -(-given.samples // len(SCENES))
        scenes = drawn([scene.format(f"<{task.name}>") for scene in SCENES], each)[: given.samples]
        samples = judge.embed(scenes)
        plain = drawn([scene.format(f"<{task.name}>") for scene in PLAIN_SCENES], 2)
        fitting = [fits(image, shapes) for image in plain]
        like = [max(fit, key=fit.__getitem__) for fit in fitting]
        references = {**own, "the base's " + task.class_noun: ideas[task.name]}
        similar = np.stack([(samples @ r.T).mean(1) for r in references.values()], axis=1)
        nearest = [list(references)[k] for k in similar.argmax(1)]
        table[task.name] = {
            "accuracy": nearest.count(task.name) / len(nearest),
            "nearest": {name: nearest.count(name) for name in dict.fromkeys(nearest)},
            "outline": like.count(task.name) / len(like),
            "outline_nearest": {name: like.count(name) for name in dict.fromkeys(like)},
            "outline_overlap": float(np.mean([fit[task.name] for fit in fitting])),
            "own_cosine": float((samples @ own[task.name].T).mean()),
            "base_cosine": float((samples @ ideas[task.name].T).mean()),
        }
        print(f"{task.name}: {table[task.name]}", file=sys.stderr, flush=True)
    drawings = load_art(given.noto, {noun: NOUNS[noun] for noun in CORE}) if styles else {}
    styled = {task.name: style_figures(task.name, drawings, drawn, judge) for task in styles}
    return {
        **{
            figure: float(np.mean([row[figure] for row in table.values()])) if table else None  # type: ignore[arg-type]
            for figure in ("accuracy", "outline")
        },
        "per_concept": table,
        "per_style": styled,
        "samples": given.samples,
        "options": {name: workspace.concepts[0].config["options"][name] for name in said},
        "compute": str(workspace.session.base().compute).removeprefix("torch."),
        "torch": torch.__version__,
    }


def style_figures(
    name: str, drawings: Art, drawn: Callable[[list[str], int], list[Image.Image]], judge: Judge
) -> dict[str, float]:
    """Of a style: whether its images keep their subjects, and whether they are in it; of the truth, and of photos."""
    shown = {noun for noun, *_ in VIEWED}
    nouns = [noun for noun in drawings if noun not in shown]
    plain = {noun: clearest_background(drawings[noun]) for noun in nouns}
    shapes = {noun: [scaled(shape_of(drawing))] for noun, drawing in drawings.items()}

    def ask(opening: str) -> list[Image.Image]:
        places = (f"{article(noun)} {noun} {background_phrase(plain[noun])}" for noun in nouns)
        return drawn([f"a {opening} of {place}" for place in places], 1)

    def kept(images: list[Image.Image], seal: bool) -> tuple[float, float]:
        right, overlaps = 0, []
        for noun, image in zip(nouns, images, strict=True):
            fit = fits(_unsealed(image) if seal else image, shapes)
            right += max(fit, key=fit.__getitem__) == noun
            overlaps.append(fit[noun])
        return right / len(nouns), float(np.mean(overlaps))

    rng = np.random.default_rng(0)
    true = [FILTERS[name](compose(drawings[noun], plain[noun], 0.66, 0.5, rng)) for noun in nouns]
    true = [image.resize((SIZE // 2, SIZE // 2), Image.Resampling.LANCZOS) for image in true]
    images, photos = ask(f"<{name}>"), ask("photo")
    seen, truth, plainly = (judge.embed(some) for some in (images, true, photos))
    sealed = name == "ink_painting"
    figures = {"": kept(images, sealed), "true_": kept(true, sealed), "photo_": kept(photos, False)}
    return {
        **{f"{of}outline": right for of, (right, _) in figures.items()},
        **{f"{of}outline_overlap": overlap for of, (_, overlap) in figures.items()},
        "in_style": float(np.mean((seen * truth).sum(1) > (seen * plainly).sum(1))),
        "images": len(images),
    }


def _unsealed(image: Image.Image) -> Image.Image:
    """The image with its background where the seal is, which is not of the thing."""
    out = image.copy()
    out.paste(image.getpixel((1, 1)), tuple(edge * image.width // SIZE for edge in SEAL))
    return out


def outlines(task: Task) -> list[np.ndarray]:
    """The object's outline, from each of its images on a plain background."""
    return [scaled(cut_out(e.image)) for e in examples(task) if e.caption.endswith(" background")]


def examples(task: Task) -> tuple:
    """A task's pictures with their captions."""
    return load_examples(task.images, class_noun=task.class_noun).examples


if __name__ == "__main__":
    main()
