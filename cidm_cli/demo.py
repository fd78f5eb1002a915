"""The whole story on the embedded base: learn concepts one after another, and see that the first still lives."""

from __future__ import annotations

import io
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from .api import Workspace, made
from .data import load_examples
from .draw import png
from .errors import CidmError
from .files.writing import write_whole
from .judge.tasks import Task, load_tasks, tasks_folder
from .layout import load_layout
from .machine.session import Listener, Session
from .models.identity import MINI, identify
from .options.computing import Computing
from .terminal.pages import Strip, page, sheet

CONCEPTS = ("dog", "cat", "ink_painting")
OBJECT_SCENES = (
    "a photo of a {} on the beach",
    "a photo of a {} in the snow",
    "a photo of a {} at night",
    "a photo of a {} in the forest",
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
size = [128, 64]         # width, height: room for two of the base's own images
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


def run(folder: Path, computing: Computing, listener: Listener) -> Demo:
    """Learns, draws and reports into ``folder``; a demo that was there before is replaced, anything else is not.

    Raises:
        CidmError: FAILED when the folder holds something else.
    """
    root = _fresh(folder)
    registry, _ = made(root, identify(MINI), listener)
    workspace = Workspace(Session(registry, computing, listener))
    assignments = {task.name: task for task in load_tasks(tasks_folder())}
    strips = []
    first: list[bytes] = []
    for name in CONCEPTS:
        task = assignments[name]
        workspace.learn(name, task.images, noun=task.class_noun, style=task.style, cache=False)
        if not first:
            first = _keep(workspace, name)
    after = _keep(workspace, CONCEPTS[0])
    unchanged = sum(old == new for old, new in zip(first, after, strict=True))
    first_sight = _side_by_side(workspace)
    for name in CONCEPTS:
        strips += _strips(workspace, assignments[name])
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
                f"{folder}: holds something that is not a demo", hint="choose another folder with -o"
            )
        shutil.rmtree(root)
    folder.mkdir(parents=True, exist_ok=True)
    return root


def _keep(workspace: Workspace, name: str) -> list[bytes]:
    """PNG files of one concept, to compare."""
    drawn = workspace.generate(OBJECT_SCENES[0].format(f"<{name}>"), count=COUNT, seed=1)
    return [png.encode(picture.image, picture.facts) for picture in drawn]


def _strips(workspace: Workspace, task: Task) -> list[Strip]:
    scenes = STYLE_SCENES if task.style else OBJECT_SCENES
    plain = [scene.format(task.class_noun) for scene in scenes]
    learned = [scene.format(f"<{task.name}>") for scene in scenes]
    pictures = [picture.image for picture in workspace.generate(*plain, *learned, seed=1)]
    examples = load_examples(task.images, class_noun=task.class_noun).examples[:5]
    what = f"<{task.name}>"
    return [
        Strip(f"{what}: what it was taught", f"All it ever saw: {len(examples)} images are shown.",
              [(e.image.resize((128, 128)), e.caption) for e in examples]),
        Strip(f"{what}: what the base knew", f'Its own idea of "{task.class_noun}".',
              list(zip(pictures[: len(plain)], plain, strict=True))),
        Strip(f"{what}: what it draws now", "Scenes that its images never showed.",
              list(zip(pictures[len(plain) :], learned, strict=True))),
    ]  # fmt: skip


def _side_by_side(workspace: Workspace) -> list[Strip]:
    """The first two concepts by layout, and by a prompt without boxes from the same seeds."""
    told = load_layout(LAYOUT_FILE, text=LAYOUT)
    pictures = workspace.generate(told, PLAIN, count=3, seed=1, size=told.image.size)
    drawn = [(picture.image, f"seed {1 + k % 3}") for k, picture in enumerate(pictures)]
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
