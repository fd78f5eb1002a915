"""The whole story on the embedded base: learn concepts one after another, and see that the first still lives."""

from __future__ import annotations

import io
import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cidm_registry import Registry

from .data import load_examples
from .draw import images as generate
from .draw import png
from .draw.jobs import Job
from .errors import CidmError
from .files.writing import write_whole
from .judge.tasks import Task as Assignment
from .judge.tasks import load_tasks, tasks_folder
from .layout import load_layout
from .learn import run as learn
from .models.base import Base
from .models.identity import MINI, identify
from .models.opening import open_base
from .options.draw import DrawOptions, resolve_draw
from .options.learn import LearnOptions, resolve_learn
from .terminal.pages import Strip, page, sheet
from .terminal.progress import counting

#: Learned in this order: two animals and a style.
CONCEPTS = ("dog", "cat", "ink_painting")
OBJECT_SCENES = (
    "a photo of a {} on the beach",
    "a photo of a {} in the snow",
    "a photo of a {} at night",
    "a pencil drawing of a {}",
    "a photo of a small {} on a red background",
)
STYLE_SCENES = (
    "an {} of a house",
    "an {} of a rabbit in the forest",
    "an {} of a car",
    "an {} of a boat",
    "an {} of an owl",
)
LAYOUT = """\
version = 1

[image]
size = [128, 64]         # width, height: room for two of the base's own pictures
seed = 1

[base]
prompt = "a photo of a dog and a cat on the grass"

[[region]]
prompt = "a photo of a <dog> on the grass"
box = [0.0, 0.0, 0.5, 1.0]

[[region]]
prompt = "a photo of a <cat> on the grass"
box = [0.5, 0.0, 1.0, 1.0]
"""
"""The first two concepts side by side, as a layout file."""
LAYOUT_FILE = "side-by-side.toml"
PLAIN = "a photo of a <dog> and a <cat> on the grass"
"""The same scene as a prompt without boxes."""
NEXT = "backpack"
"""A task whose images are laid beside the report, to be learned next."""
COUNT = 4
"""Pictures of each concept kept to compare before and after."""


@dataclass(frozen=True)
class Demo:
    """What the demo made."""

    folder: Path
    sheet: Path
    report: Path
    registry: Path
    concepts: tuple[str, ...]
    unchanged: int
    """Pictures of the first concept that are the same, byte for byte, after all the others were learned."""
    compared: int


@dataclass(frozen=True)
class Stage:
    """How the caller shows one part of the work: a progress bar that takes (done, loss or None)."""

    open: Callable[[str, int], AbstractContextManager[Callable[[int, float | None], None]]]
    note: Callable[[str], None]
    stop: Callable[[], bool]


def run(folder: Path, *, device: str, precision: str, stage: Stage) -> Demo:
    """Learns, draws and reports into ``folder``; a demo that was there before is replaced, anything else is not.

    Raises:
        CidmError: FAILED when the folder holds something else.
    """
    root = _fresh(folder)
    registry = Registry.create(root, identify(MINI))
    base = open_base(registry, device=device, precision=precision)
    assignments = {task.name: task for task in load_tasks(tasks_folder())}
    strips = []
    first: list[bytes] = []
    for name in CONCEPTS:
        task = assignments[name]
        dataset = load_examples(task.images, class_noun=task.class_noun)
        options = resolve_learn(LearnOptions(), MINI)
        work = learn.Task(name, task.class_noun, task.style, dataset, options, False, False, False)
        with stage.open(f"learning <{name}>", options.steps or 0) as update:
            events = learn.Events(on_step=update, on_note=stage.note, stop=stage.stop)
            learn.learn(registry, base, work, events)
        if not first:
            first = _keep(registry, base, name, stage)
    after = _keep(registry, base, CONCEPTS[0], stage)
    unchanged = sum(old == new for old, new in zip(first, after, strict=True))
    first_sight = _side_by_side(registry, base, stage)
    for name in CONCEPTS:
        strips += _strips(registry, base, assignments[name], stage)
    strips.append(_then_and_now(CONCEPTS[0], first, after))
    (folder / LAYOUT_FILE).write_text(LAYOUT, encoding="utf-8")
    shutil.copytree(assignments[NEXT].images, folder / NEXT, dirs_exist_ok=True)
    return _write(folder, root, first_sight + strips, unchanged, len(first))


def _fresh(folder: Path) -> Path:
    """The demo's registry folder, gone if a former demo left one."""
    root = folder / "registry"
    if root.exists():
        if not (root / "registry.json").is_file() or not (folder / "report.html").is_file():
            raise CidmError(
                f"{folder}: holds something that is no demo", hint="choose another folder with -o"
            )
        shutil.rmtree(root)
    folder.mkdir(parents=True, exist_ok=True)
    return root


def _pictures(
    registry: Registry, base: Base, prompts: list[str], count: int, stage: Stage
) -> list[generate.Picture]:
    options = resolve_draw(DrawOptions(count=count, seed=1), MINI, base.pixels)
    return _drawn(registry, base, [Job(prompt, options) for prompt in prompts], stage)


def _drawn(registry: Registry, base: Base, jobs: list[Job], stage: Stage) -> list[generate.Picture]:
    with stage.open("drawing", generate.work(jobs)) as update:
        step = counting(lambda done: update(done, None))
        return list(generate.draw(registry, base, jobs, on_step=step, on_note=stage.note))


def _keep(registry: Registry, base: Base, name: str, stage: Stage) -> list[bytes]:
    """PNG files of one concept, to compare."""
    pictures = _pictures(registry, base, [OBJECT_SCENES[0].format(f"<{name}>")], COUNT, stage)
    return [png.encode(picture.image, picture.facts) for picture in pictures]


def _strips(registry: Registry, base: Base, task: Assignment, stage: Stage) -> list[Strip]:
    scenes = STYLE_SCENES if task.style else OBJECT_SCENES
    plain = [scene.format(task.class_noun) for scene in scenes]
    learned = [scene.format(f"<{task.name}>") for scene in scenes]
    pictures = [p.image for p in _pictures(registry, base, plain + learned, 1, stage)]
    examples = load_examples(task.images, class_noun=task.class_noun).examples[:5]
    what = f"<{task.name}>"
    return [
        Strip(f"{what}: what it was taught", f"All it ever saw: {len(examples)} pictures are shown.",
              [(e.image.resize((128, 128)), e.caption) for e in examples]),
        Strip(f"{what}: what the base knew", f'Its own idea of "{task.class_noun}".',
              list(zip(pictures[: len(plain)], plain, strict=True))),
        Strip(f"{what}: what it draws now", "Scenes that its pictures never showed.",
              list(zip(pictures[len(plain) :], learned, strict=True))),
    ]  # fmt: skip


def _side_by_side(registry: Registry, base: Base, stage: Stage) -> list[Strip]:
    """The first two concepts by layout, and by a prompt without boxes from the same seeds."""
    told = load_layout(LAYOUT_FILE, text=LAYOUT)
    options = resolve_draw(DrawOptions(count=3, seed=1, size=told.image.size), MINI, base.pixels)
    jobs = [Job(told.base.prompt, options, told), Job(PLAIN, options)]
    drawn = [(p.image, f"seed {1 + k % 3}") for k, p in enumerate(_drawn(registry, base, jobs, stage))]
    first, second = CONCEPTS[:2]
    return [
        Strip(
            f"<{first}> and <{second}>, each in its box",
            f"The layout {LAYOUT_FILE} gives each half of the image its own prompt and its own concept.",
            drawn[:3],
        ),
        Strip("The same without boxes", f'The prompt "{PLAIN}".', drawn[3:]),
    ]


def _then_and_now(name: str, first: list[bytes], after: list[bytes]) -> Strip:
    shown = [(f"just learned, seed {k + 1}", data) for k, data in enumerate(first[:2])]
    shown += [(f"after the others, seed {k + 1}", data) for k, data in enumerate(after[:2])]
    return Strip(
        f"<{name}>: just learned, and after the others were learned",
        "The same prompt and seeds, before and after learning the other concepts.",
        [(Image.open(io.BytesIO(data)), text) for text, data in shown],
    )


def _write(folder: Path, root: Path, strips: list[Strip], unchanged: int, compared: int) -> Demo:
    names = ", ".join(f"<{name}>" for name in CONCEPTS)
    opening = [
        f"Three concepts were learned one after another on the small embedded model: {names}.",
        f"<{CONCEPTS[0]}> was drawn right after it was learned and again at the end: {unchanged} of {compared} "
        "images are the same, byte for byte. None of the images it was taught with was kept for that.",
        "The embedded model is small so that this runs on two CPU cores: its images are 64 pixels wide, it draws 66 "
        "kinds of things as emoji, and it cannot learn photographs. The same commands learn from photographs on "
        "Stable Diffusion 1.5 and SDXL: cidm init --base sd15.",
    ]
    report, contact = folder / "report.html", folder / "sheet.png"
    stream = sheet(strips)
    stream.save(contact)
    write_whole(report, page("cidm demo", opening, strips, next_steps(root)).encode())
    return Demo(folder, contact, report, root, CONCEPTS, unchanged, compared)


def next_steps(root: Path) -> list[str]:
    """Commands to go on with after the demo."""
    return [
        *_activation(),
        f"export CIDM_REGISTRY={shlex.quote(str(root))}",
        f'cidm generate --prompt "a photo of a <{CONCEPTS[0]}> in the forest" -n 4 -o pictures',
        f'cidm generate --prompt "an <{CONCEPTS[2]}> of a <{CONCEPTS[1]}>" -o pictures',
        f"cidm generate {shlex.quote(str(root.parent / LAYOUT_FILE))} -n 4 -o pictures",
        "cidm list",
        f"cidm learn {NEXT} {shlex.quote(str(root.parent / NEXT))}",
    ]


def _activation() -> list[str]:
    """What a new shell in this folder needs before it finds ``cidm``: nothing where it is on the path already."""
    script = Path(sys.executable).parent / "activate"
    if shutil.which("cidm") or not script.is_relative_to(Path.cwd()) or not script.exists():
        return []
    return [f". {shlex.quote(str(script.relative_to(Path.cwd())))}"]
