"""Many personal concepts, alike on purpose, of art that the embedded base has not seen: what a scale test learns.

Classes are nouns the base knows; individuals of a class are different Fluent drawings of it, or one drawing dyed,
patterned or dressed. Written in the shape of mini-CIFC, five captioned 64 px pictures each, so that `load_tasks`
reads it. The same art and count give the same files, and fewer concepts are the first of more: the first 10 are two
of each of five classes, the first 30 four of each of these and two of five more, the first 60 and 100 go on so.

    python -m benchmarks.concepts --art package --count 100 --out DIR [--show SHEET.png]

``package`` is the unpacked npm package @lobehub/fluent-emoji-3d (Fluent Emoji, Copyright Microsoft, MIT).
"""

from __future__ import annotations

import argparse
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cidm_cli.demo import tasks_folder
from cidm_cli.terminal.pages import Strip, sheet
from tools.mini.concepts import load_drawing
from tools.mini.painters import paint_background
from tools.mini.scenes import background_phrase, paste_object
from tools.mini.world import BACKGROUNDS, PLAIN, article

from .looks import ROWS, Look
from .recolour import dye, paint, wear

SIDE = 64
PICTURES = 5
PROMPTS = "object"


@dataclass(frozen=True)
class Concept:
    """One concept to learn."""

    name: str
    noun: str
    look: Look


def concepts(count: int) -> tuple[Concept, ...]:
    """The first ``count`` concepts in the order of learning: classes take turns, each wave has a further row of them.

    Raises:
        ValueError: there are not so many.
    """
    places = []
    for row, classes in enumerate(ROWS):
        for column, (noun, looks) in enumerate(classes.items()):
            for k, look in enumerate(looks):
                concept = Concept(f"{noun.replace(' ', '_')}{k + 1}", noun, look)
                places.append(((row + k // 2, k % 2, row, column), concept))
    if not 1 <= count <= len(places):
        raise ValueError(f"there are 1 to {len(places)} concepts, not {count}")
    return tuple(concept for _, concept in sorted(places, key=lambda place: place[0])[:count])


def drawing(look: Look, art: Path) -> Image.Image:
    """The individual, RGBA, cropped to its content."""
    sprite = load_drawing(art, look.code)
    if look.coat:
        sprite = dye(sprite, look.coat)
    if look.pattern:
        sprite = paint(sprite, *look.pattern)
    if look.wears:
        put_on = look.wears
        sprite = wear(sprite, load_drawing(art, put_on.code), (put_on.x, put_on.y), put_on.width, put_on.hue)
    return sprite


def pictures(concept: Concept, art: Path) -> list[tuple[Image.Image, str]]:
    """Pictures and captions; a pure function of concept and art. No two are on one background."""
    rng = np.random.default_rng(zlib.crc32(concept.name.encode()))
    sprite = drawing(concept.look, art)
    painted = rng.choice(list(BACKGROUNDS), PICTURES - 2, replace=False)
    plain = rng.choice([name for name in PLAIN if _shows_on(sprite, name)], 2, replace=False)
    out = []
    for background in rng.permutation([*painted, *plain]):
        canvas = paint_background(str(background), rng, SIDE)
        centre = (rng.uniform(0.44, 0.56), rng.uniform(0.50, 0.58))
        paste_object(canvas, sprite, scale=rng.uniform(0.56, 0.86), centre=centre)
        caption = f"a photo of {article(concept.noun)} {concept.noun} {background_phrase(str(background))}"
        out.append((canvas, caption))
    return out


def _shows_on(sprite: Image.Image, plain: str) -> bool:
    """Whether the drawing's mean colour is far from a plain background's."""
    pixels = np.asarray(sprite, float)
    mean = pixels[pixels[:, :, 3] > 128][:, :3].mean(0)
    return bool(np.linalg.norm(mean - PLAIN[plain]) > 70)


def write(art: Path, out: Path, count: int) -> tuple[Concept, ...]:
    """Writes tasks.toml, the pictures with their captions and mini-CIFC's prompts for objects into a new folder.

    Raises:
        ValueError: there are not so many concepts.
        FileExistsError: the folder holds something.
    """
    chosen = concepts(count)
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty")
    lines = [f"# {count} personal concepts of Fluent Emoji, alike on purpose, learned in this order."]
    for number, concept in enumerate(chosen, 1):
        folder = out / "concepts" / concept.name
        folder.mkdir(parents=True)
        for k, (image, caption) in enumerate(pictures(concept, art)):
            image.save(folder / f"{k:02d}.png")
            (folder / f"{k:02d}.txt").write_text(caption + "\n")
        lines += ["[[task]]", f'id = "V{number}"', f'name = "{concept.name}"']
        lines += [f'class_noun = "{concept.noun}"', f'prompts = "{PROMPTS}"', ""]
    (out / "prompts").mkdir()
    prompts = (tasks_folder() / "prompts" / f"{PROMPTS}.txt").read_text()
    (out / "prompts" / f"{PROMPTS}.txt").write_text(prompts)
    (out / "tasks.toml").write_text("\n".join(lines))
    return chosen


def show(chosen: tuple[Concept, ...], art: Path) -> Image.Image:
    """A contact sheet: a row of drawings and one of pictures for each class, its individuals side by side."""
    strips = []
    for noun in dict.fromkeys(concept.noun for concept in chosen):
        alike = [concept for concept in chosen if concept.noun == noun]
        drawn, shot = [], []
        for k, concept in enumerate(alike):
            canvas = Image.new("RGB", (SIDE, SIDE), (200, 204, 208))
            paste_object(canvas, drawing(concept.look, art), scale=0.92, centre=(0.5, 0.5))
            drawn.append((canvas, concept.name))
            shot.append((pictures(concept, art)[k % PICTURES][0], concept.name))
        strips += [Strip(f"{noun}: {len(alike)}", "", drawn), Strip("in scenes", "", shot)]
    return sheet(strips, side=96)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.concepts", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument(
        "--art", type=Path, required=True, help="unpacked npm package @lobehub/fluent-emoji-3d"
    )
    parser.add_argument("--count", type=int, default=100, help="how many concepts (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, required=True, help="a new folder for tasks.toml, concepts/, prompts/"
    )
    parser.add_argument(
        "--show", type=Path, metavar="SHEET.png", help="also write a contact sheet of them all"
    )
    given = parser.parse_args()
    chosen = write(given.art, given.out, given.count)
    if given.show:
        show(chosen, given.art).save(given.show)
    print(f"{len(chosen)} concepts of {len({concept.noun for concept in chosen})} classes in {given.out}")


if __name__ == "__main__":
    main()
