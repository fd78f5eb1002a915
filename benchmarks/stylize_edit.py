"""How well a picture takes a learned style and keeps its structure, and a part of it a learned object.

Prints one JSON object. The registry holds mini-CIFC's ten concepts; the pictures drawn over are the objects' own,
Fluent Emoji, which the base has never seen. IA is the mean cosine to a concept's reference pictures, by each of the
base's judges.

- ``stylize.START.STRENGTH.PROMPT``: ``style``, IA of the style less that of the untouched picture; ``share``, the same
  over what drawing from nothing gains; ``edges``, correlation of the edge maps of result and given picture (Sobel), and
  ``shuffled``, of the result and other pictures. START is "found" or "noise", with or without --invert; PROMPT is
  "name", the style alone, or "caption", the style and what is to be seen.
- ``edit.SIDE.WAY``, SIDE the box's share of the picture's side, WAY with or without --crop: ``identity``, IA of what is
  in the box; ``alone``, of the concept drawn alone, resized to the box's pixels; ``untouched``, of what was there
  before; ``share``, (identity - untouched) / (alone - untouched). ``outside``: largest change of a pixel outside the
  boxes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from cidm_cli.bases import family
from cidm_cli.data import Example, load_examples
from cidm_cli.demo import tasks_folder
from cidm_cli.draw import images as generate
from cidm_cli.draw import over
from cidm_cli.draw.jobs import Job
from cidm_cli.draw.over_jobs import OBJECT_PROMPT, EditTask, StyleTask, plan_edit, plan_style
from cidm_cli.files.given import Given, read_given
from cidm_cli.judge.encoders import Judges, choose, open_judges
from cidm_cli.judge.tasks import Task, load_tasks
from cidm_cli.models.base import Base
from cidm_cli.models.identity import MINI, mini_folder
from cidm_cli.models.opening import open_base
from cidm_cli.options.draw import resolve_draw
from cidm_cli.options.over import EditOptions, StylizeOptions
from cidm_registry import Registry


@dataclass(frozen=True)
class Bench:
    """What all measurements need."""

    registry: Registry
    base: Base
    judges: Judges
    tasks: tuple[Task, ...]
    pictures: tuple[tuple[Given, Example], ...]
    """Drawn over, with what is known of them."""

    def alignment(self, task: Task, images: Sequence[Image.Image]) -> dict[str, np.ndarray]:
        """IA of each picture with a concept's references, by judge."""
        references = [e.image for e in load_examples(task.images, class_noun=task.class_noun).examples]
        out = {}
        for name in self.judges.names:
            judge = getattr(self.judges, name)
            out[name] = (judge.embed(images) @ judge.embed(references).T).mean(1)
        return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--registry", type=Path, required=True, help="holds mini-CIFC's ten concepts")
    parser.add_argument("--pictures", type=int, default=6, help="pictures drawn over")
    parser.add_argument("--seeds", type=int, default=1, help="results of each picture")
    parser.add_argument("--strengths", type=float, nargs="*", default=[0.3, 0.5, 0.7])
    parser.add_argument(
        "--sides", type=float, nargs="*", default=[0.35, 0.6, 0.85], help="of the edited boxes"
    )
    parser.add_argument("--edit-strength", type=float, default=EditOptions().strength)
    parser.add_argument("--show", type=Path, metavar="FOLDER", help="also write the pictures there")
    given = parser.parse_args()
    registry = Registry.open(given.registry)
    tasks = tuple(load_tasks(tasks_folder()))
    bench = Bench(
        registry, open_base(registry, device="auto", precision="auto"),
        open_judges(choose(mini_folder(), None, None, family(MINI).judges)), tasks, unseen(tasks, given.pictures),
    )  # fmt: skip
    result: dict[str, Any] = {"stylize": styles(bench, given), "edit": edits(bench, given)}
    result |= {"pictures": given.pictures, "seeds": given.seeds, "compute": str(bench.base.compute)}
    print(json.dumps(result))


def unseen(tasks: Sequence[Task], count: int) -> tuple[tuple[Given, Example], ...]:
    """Pictures of the objects with their captions, from each in turn."""
    objects = [
        load_examples(task.images, class_noun=task.class_noun).examples for task in tasks if not task.style
    ]
    turns = [some[k] for k in range(max(map(len, objects))) for some in objects if k < len(some)]
    return tuple((read_given(example.path), example) for example in turns[:count])


def styles(bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    """Style taken and structure kept, by start, strength and prompt."""
    untouched = [p.image for p, _ in bench.pictures for _ in range(given.seeds)]
    rows: dict[tuple[str, float, str], list[dict[str, float]]] = {}
    for task in [task for task in bench.tasks if task.style]:
        before = bench.alignment(task, untouched)
        for prompt in ("name", "caption"):
            words = [
                _styled(task, example.caption) if prompt == "caption" else None
                for _, example in bench.pictures
            ]
            whole = StylizeOptions(strength=1.0, draw={"count": given.seeds, "seed": 100, "batch": 8})
            nothing = bench.alignment(task, _stylized(bench, task, words, whole))
            full = {f"full {name}": float((nothing[name] - before[name]).mean()) for name in nothing}
            for start, strength in itertools.product(("found", "noise"), given.strengths):
                options = replace(whole, strength=strength, invert=start == "found")
                images = _stylized(bench, task, words, options)
                found = bench.alignment(task, images)
                gain = {f"style {name}": float((found[name] - before[name]).mean()) for name in found}
                row = {**_edges_kept(untouched, images, given.seeds), **gain, **full}
                rows.setdefault((start, strength, prompt), []).append(row)
                _show(given.show, f"{task.name}-{prompt}-{start}-{strength:g}", images)
            say(f"{task.name}, {prompt}: done")
    out: dict[str, Any] = {}
    for (start, strength, prompt), some in rows.items():
        mean = {key: float(np.mean([row[key] for row in some])) for key in some[0]}
        style = {name: mean[f"style {name}"] for name in bench.judges.names}
        share = {name: style[name] / mean[f"full {name}"] for name in bench.judges.names}
        cell = {"style": style, "share": share, "edges": mean["edges"], "shuffled": mean["shuffled"]}
        out.setdefault(start, {}).setdefault(f"{strength:g}", {})[prompt] = cell
    return out


def _stylized(
    bench: Bench, task: Task, words: Sequence[str | None], options: StylizeOptions
) -> list[Image.Image]:
    """Every picture in the style; those of one prompt are drawn together."""
    out: list[Image.Image] = []
    start = 0
    while start < len(words):
        end = start + 1
        while end < len(words) and words[end] == words[start]:
            end += 1
        some = [picture for picture, _ in bench.pictures[start:end]]
        plan = plan_style(bench.registry, some, task.name, words[start], options)
        out += [picture.image for picture in painted(bench, plan)]
        start = end
    return out


def _styled(task: Task, caption: str) -> str:
    """ "a photo of a dog on the grass" as "a <painting> of a dog on the grass"."""
    return caption.replace("photo", f"<{task.name}>", 1)


def edge_map(image: Image.Image) -> np.ndarray:
    """Length of the brightness gradient by Sobel's operator, slightly blurred first: emoji have hard edges."""
    grey = np.asarray(image.convert("L").filter(ImageFilter.GaussianBlur(1)), float)
    across = grey[:, 2:] - grey[:, :-2]
    down = grey[2:] - grey[:-2]
    gx = across[:-2] + 2 * across[1:-1] + across[2:]
    gy = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    return np.hypot(gx, gy)


def _edges_kept(before: Sequence[Image.Image], after: Sequence[Image.Image], seeds: int) -> dict[str, float]:
    """Mean correlation of edge maps, of pairs that belong together and of all that do not."""
    reduced = [image.resize(after[0].size, Image.Resampling.LANCZOS) for image in before]
    flat = [[edge_map(image).ravel() for image in some] for some in (after, reduced)]
    table = np.corrcoef(*[np.stack(some) for some in flat])[: len(after), len(after) :]
    own = np.arange(len(after)) // seeds
    same = own[:, None] == own[None]
    return {"edges": float(np.diag(table).mean()), "shuffled": float(table[~same].mean())}


def edits(bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    """What is in the box, by its size, drawn enlarged or not."""
    outside = 0
    rows: dict[tuple[float, str], list[dict[str, float]]] = {}
    objects = [task for task in bench.tasks if not task.style]
    for task in objects:
        # Never over pictures of its own class: what was there before would count for it.
        some = [
            p
            for p, example in bench.pictures
            if example.path.parent.name.rstrip("2") != task.name.rstrip("2")
        ]
        draw = resolve_draw(dict(count=len(some) * given.seeds, batch=8, seed=100), MINI, bench.base.pixels)
        job = Job(OBJECT_PROMPT.format(f"<{task.name}>"), draw)
        alone = [picture.image for picture in generate.draw(bench.registry, bench.base, [job])]
        for side in given.sides:
            box = ",".join(f"{edge:g}" for edge in _box(side))
            options = EditOptions(
                strength=given.edit_strength, draw={"count": given.seeds, "seed": 100, "batch": 8}
            )
            for way in ("crop", "no crop"):
                plan = plan_edit(
                    bench.registry, some, task.name, None, replace(options, crop=way == "crop"), box=box
                )
                pictures = painted(bench, plan)
                parts = [tuple(p.facts["box"]) for p in pictures]
                for picture, part in zip(pictures, parts, strict=True):
                    outside = max(outside, _outside(picture, part))
                now = [p.image.crop(part) for p, part in zip(pictures, parts, strict=True)]
                was = [p.given.image.crop(part) for p, part in zip(pictures, parts, strict=True)]
                sized = [image.resize(now[0].size, Image.Resampling.LANCZOS) for image in alone]
                row = {}
                for key, images in (("identity", now), ("alone", sized), ("untouched", was)):
                    enlarged = [i.resize((bench.base.pixels,) * 2, Image.Resampling.LANCZOS) for i in images]
                    for name, values in bench.alignment(task, enlarged).items():
                        row[f"{key} {name}"] = float(values.mean())
                rows.setdefault((side, way), []).append(row)
                _show(given.show, f"edit-{task.name}-{side:g}-{way}", [p.image for p in pictures])
        say(f"{task.name}: edited")
    out: dict[str, Any] = {}
    for (side, way), some_rows in rows.items():
        mean = {key: float(np.mean([row[key] for row in some_rows])) for key in some_rows[0]}
        cell: dict[str, Any] = {
            key: {name: mean[f"{key} {name}"] for name in bench.judges.names}
            for key in ("identity", "alone", "untouched")
        }
        cell["share"] = {
            name: (cell["identity"][name] - cell["untouched"][name])
            / (cell["alone"][name] - cell["untouched"][name])
            for name in bench.judges.names
        }
        out.setdefault(f"{side:g}", {})[way] = cell
    return {**out, "outside": outside}


def _box(side: float) -> tuple[float, float, float, float]:
    """A box of that share of the picture's sides, below the middle, where things stand."""
    left, top = 0.5 - side / 2, min(0.55 - side / 2, 1 - side)
    return left, top, left + side, top + side


def painted(bench: Bench, task: StyleTask | EditTask) -> list[generate.Picture]:
    return list(generate.draw(bench.registry, bench.base, over.jobs(bench.registry, bench.base, task)))


def _outside(picture: generate.Picture, part: tuple[int, ...]) -> int:
    """Largest change of a pixel outside a box, of 255."""
    x0, y0, x1, y1 = part
    change = np.abs(np.asarray(picture.image, int) - np.asarray(picture.given.image, int))
    change[y0:y1, x0:x1] = 0
    return int(change.max())


def _show(folder: Path | None, name: str, images: Sequence[Image.Image]) -> None:
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    row = Image.new("RGB", (sum(image.width for image in images), images[0].height))
    for number, image in enumerate(images):
        row.paste(image, (number * images[0].width, 0))
    row.save(folder / f"{name}.png")


def say(line: str) -> None:
    """On stderr: stdout is for the result."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
