"""The paper's tables on the paper's benchmark, for whoever has its pictures, the weights and a GPU.

git clone https://github.com/JiahuaDong/CIFC
python -m benchmarks.paper --data CIFC --bases sd15 sdxl --work paper-work

For each base and method: learns the ten tasks in the paper's order with the paper's settings, draws each concept by
its 20 prompts after the last task, and judges the pictures by CLIP and DINO. Writes paper.md and paper.json into
--work, anew after each row, with the figures that the paper prints beside. Everything else made on the way is kept
in --work, too: stop it whenever you like, and the same command goes on. Prints the JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cidm_cli.judge.tasks import Task
from cidm_cli.models.identity import identify
from cidm_cli.options.declared import settled
from cidm_cli.options.draw import resolve_draw
from cidm_cli.options.judge import EvalOptions
from cidm_cli.options.learn import resolve_learn

from .cifc import tasks_of
from .continual import NAMED, ROWS, Pass, made
from .lab import Lab, ending, say
from .paper_tables import SAMPLES, SOURCE, Line, figures, page, printed

LINES = (
    Line("base", "the base alone, by the class noun", NAMED),
    Line("single", "each concept's LoRA alone", NAMED),
    Line("finetune", "Finetuning", "finetune", paper="Finetuning"),
    Line("ewc", "EWC", "ewc", paper="EWC"),
    Line("lwf", "LwF", "lwf", paper="LwF"),
    Line("lora-m", "LoRA-M, mean", "lora-m mean", paper="LoRA-M"),
    Line("lora-m-sum", "LoRA-M, sum", "lora-m sum", paper="LoRA-M"),
    Line("lora-c", "LoRA-C", "lora-c", paper="LoRA-C"),
    Line("lora-switch", "LoRA Switch", "lora-switch"),
    Line("c-lora", "C-LoRA", "c-lora", paper="C-LoRA"),
    Line("cidm", "CIDM (this program's reading)", "cidm", paper="CIDM"),
    Line("paper", "CIDM, R1, R2 and Eq. 3 as printed", "literal R1 and R2, paper", paper="CIDM"),
    Line("paper-learning", "CIDM, R1 and R2 as printed", "cidm, literal R1 and R2"),
    Line("paper-drawing", "CIDM, Eq. 3 as printed", "cidm, paper"),
    Line("official", "CIDM, Eq. 3 as published in code", "cidm, official"),
    Line("aggregation", "Eq. 3 as published in code, without R1 and R2", "aggregation alone, official",
         paper="CIDM without R1 and R2"),
)  # fmt: skip
"""What the tables may hold. ``base`` and ``single`` are always there: all the others are measured against them."""
ALWAYS = ("base", "single")
NEGATIVE = (
    "longbody, lowres, bad anatomy, bad hands, extra digit, fewer digits, cropped, worst quality, low quality"
)
"""Of the published inference.py, as are SEED and BATCH."""
SEED = 2024
BATCH = 5
LEARNING: Mapping[str, Any] = {"buckets": False}
"""The published code learns squares; all else that the paper says are the defaults of its bases."""


def main() -> None:
    given = arguments()
    names = [line.name for line in LINES if line.name in ALWAYS or line.name in given.methods]
    report: dict[str, Any] = {"protocol": told(given), "source": SOURCE, "bases": {}}
    tasks = tasks_of(given.data, given.work / "cifc")[: given.tasks]
    for base in given.bases:
        lab = opened(base, given)
        table: dict[str, Any] = {}
        report["bases"][base] = {
            "family": lab.kind, "source": lab.reference.source, "fingerprint": lab.reference.fingerprint,
            "judges": {"clip": lab.choice.clip, "dino": lab.choice.dino}, "printed": printed(lab.kind),
            "rows": table,
        }  # fmt: skip
        for line in (line for line in LINES if line.name in names):
            results = [result(lab, line, tasks, seed, given) for seed in given.seeds]
            table[line.name] = {
                "title": line.title,
                "paper": printed(lab.kind).get(line.paper or ""),
                **figures(results, tasks, way=line.name if line.name in ALWAYS else "final"),
            }
            write(given.work, report)
    print(json.dumps(report))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    wanted = [line.name for line in LINES if line.name not in ALWAYS]
    parser.add_argument("--data", type=Path, required=True, metavar="PATH",
                        help="a clone of JiahuaDong/CIFC, or a folder with a tasks.toml")  # fmt: skip
    parser.add_argument("--bases", nargs="+", default=["sd15", "sdxl"], metavar="BASE",
                        help="as `cidm init --base` takes them")  # fmt: skip
    parser.add_argument(
        "--work", type=Path, default=Path("paper-work"), help="what is there is not made again"
    )
    parser.add_argument("--methods", nargs="+", default=wanted, choices=wanted, metavar="METHOD",
                        help=f"else all: {', '.join(wanted)}")  # fmt: skip
    parser.add_argument("--tasks", type=_positive, metavar="N", help="only the first N")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="trainings of each method")
    parser.add_argument("--steps", type=_positive, help="training steps, else the paper's 800")
    parser.add_argument(
        "--prompts", type=_positive, metavar="N", help="only the first N of each concept's 20"
    )
    parser.add_argument("--samples", type=_positive, default=SAMPLES, help="pictures of each prompt")
    parser.add_argument("--draw-steps", type=_positive, help="denoising steps, else the paper's 50")
    parser.add_argument("--negative", default=NEGATIVE, help="negative prompt, else the published code's")
    parser.add_argument("--batch", type=_positive, default=BATCH, help="pictures drawn at once")
    parser.add_argument("--judges", nargs="+", default=[], metavar="WEIGHTS",
                        help="CLIP and second judge: folders or hub names; `none` for no second judge")  # fmt: skip
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    given = parser.parse_args()
    if len(given.judges) > 2:
        parser.error("--judges takes a CLIP and at most one second judge")
    return given


def _positive(said: str) -> int:
    if (number := int(said)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def told(given: argparse.Namespace) -> dict[str, Any]:
    """What was asked for, without where it is kept."""
    left_out = ("data", "work", "bases", "methods", "judges")
    return {name: value for name, value in vars(given).items() if name not in left_out}


def opened(base: str, given: argparse.Namespace) -> Lab:
    """A lab for one base, in a folder of its own; nothing is loaded yet."""
    reference = identify(base, on_note=say)
    clip, dino = [*given.judges, None, None][:2]
    return Lab(
        given.work / f"{reference.kind}-{reference.fingerprint[:12]}", reference, given.device, given.precision,
        clip, dino, progress=tenths,
    )  # fmt: skip


def result(
    lab: Lab, line: Line, tasks: Sequence[Task], seed: int, given: argparse.Namespace
) -> dict[str, Any]:
    """One line's figures for one seed, as ``Evaluation.to_json`` has them."""
    judging = settled(EvalOptions, dict(
        samples=given.samples, limit_prompts=given.prompts, seed=SEED + 1000 * seed, batch=given.batch,
        steps=given.draw_steps, negative=given.negative, save=False,
    ))  # fmt: skip
    learning = {**LEARNING, "seed": seed, **({"steps": given.steps} if given.steps else {})}
    steps = resolve_learn(learning, lab.kind).steps
    run = Pass(
        tasks, learning, judging, learned=f"{steps}-{seed}", judged=f"{steps}-{seed}-{_mark(lab, judging, tasks)}",
        at_end=True,
    )  # fmt: skip
    row = next(row for row in ROWS if row.name == line.row)
    return made(lab, row, run)


def _mark(lab: Lab, judging: EvalOptions, tasks: Sequence[Task]) -> str:
    """Tells results apart that were drawn or judged otherwise; pictures are kept by content and shared anyway."""
    settings = asdict(resolve_draw(judging.drawn, lab.kind, 8))
    prompts = [[task.name, task.class_noun, task.prompts[: judging.limit_prompts]] for task in tasks]
    whole = [settings, prompts, lab.choice.clip, lab.choice.dino, lab.precision]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:12]


def write(folder: Path, report: Mapping[str, Any]) -> None:
    """Both files, each whole or not at all."""
    for name, text in (("paper.json", json.dumps(report, indent=1) + "\n"), ("paper.md", page(report))):
        part = folder / f"{name}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(folder / name)


@contextmanager
def tenths(label: str, total: int) -> Iterator[Any]:
    """A line for each tenth of what may take hours; none for what is short."""
    shown = 0

    def update(done: int) -> None:
        nonlocal shown
        if total >= 100 and (now := 10 * done // total) > shown:
            shown = now
            say(f"{label}: {10 * now} %")

    yield update


if __name__ == "__main__":
    ending(main)
