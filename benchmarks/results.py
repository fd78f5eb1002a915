"""Writes docs/results.md, docs/results.json and their plots from what continual.py, promises.py and layouts.py printed.

python -m benchmarks.continual --work W > continual.json
python -m benchmarks.promises --work W --concepts DIR > promises.json
python -m benchmarks.layouts --work W > layouts.json
python -m benchmarks.results --continual continual.json --promises promises.json --layouts layouts.json --out docs

What was run in parts, some seeds or some counts at a time, is given as several files.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .continual import ROWS
from .promises import COUNTS, WEAKER

COLUMNS = (
    ("ia clip", "IA"), ("ia dino", "IA, second judge"), ("ta", "TA"), ("forgetting clip", "forgetting"),
    ("retention clip", "retention"), ("confusion clip", "confusion"),
)  # fmt: skip
BASELINES = ("finetune", "ewc", "lwf", "c-lora", "lora-m mean", "lora-m sum", "lora-c", "lora-switch")
"""Rows of other methods that keep no old picture."""
BOXED = (
    ("identity_ratio", "identity"), ("single_ratio", "of single"), ("kept", "kept"),
    ("presence", "presence"), ("taken", "taken"), ("background", "spill"),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--continual", type=Path, nargs="*")
    parser.add_argument("--promises", type=Path, nargs="*")
    parser.add_argument("--layouts", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    given = parser.parse_args()
    path = given.out / "results.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    if given.continual:
        known["continual"] = together(given.continual)
        plot_methods(known["continual"]["rows"], given.out / "images" / "results-methods.png")
    if given.promises:
        known["promises"] = together(given.promises)
        known["retention"] = retention(known["promises"]["promises"])
        plot_promises(known["promises"]["promises"], given.out / "images" / "results-promises.png")
    if given.layouts:
        found = json.loads(given.layouts.read_text())
        own = found["ways"]["own"]
        known["layouts"] = {name: own[name]["clip"] for name in ("identity_ratio", "presence")} | found
    path.write_text(json.dumps(known, indent=1) + "\n")
    (given.out / "results.md").write_text(page(known))
    print(json.dumps({"written": [str(path), str(given.out / "results.md")]}))


def together(files: Sequence[Path]) -> dict[str, Any]:
    """What several runs printed as one; of what two of them have, the first one's."""
    whole: dict[str, Any] = {}
    for file in files:
        _fill(whole, json.loads(file.read_text()))
    return whole


def _fill(whole: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(whole.get(name), dict):
            _fill(whole[name], value)
        else:
            whole.setdefault(name, value)


def retention(promises: Mapping[str, Any], training: str = "cidm") -> dict[str, dict[str, float]]:
    """The default's retention by CLIP: routed and static by number of concepts, composed by how many are named."""
    own = promises[training]
    return {
        "routed": {k: v["named"]["retention"]["clip"] for k, v in own.get("routed", {}).items()},
        "composed": {k: v["clip"]["of_own"][0] for k, v in own.get("composed", {}).items()},
        "static": {
            k: v["fuse"]["retention"]["clip"] for k, v in own.get("static", {}).items() if "fuse" in v
        },
    }


def page(known: Mapping[str, Any]) -> str:
    """docs/results.md."""
    lines = [
        "# Results on the embedded base",
        "",
        "Made by `benchmarks/continual.py`, `benchmarks/promises.py`, `benchmarks/layouts.py` and",
        "`benchmarks/results.py`; the numbers behind the tables are in `results.json`. What the figures mean:",
        "[evaluation.md](evaluation.md). How concepts are put together: [aggregation.md](aggregation.md). How they",
        "are learned: [methods.md](methods.md). How layouts are drawn: [layouts.md](layouts.md).",
    ]
    if "continual" in known:
        lines += methods_table(known["continual"])
    if "promises" in known:
        found = known["promises"]["promises"]
        lines += [
            "",
            "## Up to a hundred concepts, many of them alike",
            "",
            *_protocol(known["promises"]["protocol"]),
        ]
        lines += routed_table(found) + composed_table(found) + static_table(found)
    if "layouts" in known:
        lines += layouts_tables(known["layouts"])
    return "\n".join(lines) + "\n"


def layouts_tables(found: Mapping[str, Any]) -> list[str]:
    told = found["protocol"]
    lines = [
        "", "## Layouts: is each region's concept the one in its box?", "",
        f"{found['layouts']} layouts of two to four mini-CIFC objects, similar ones together, {found['boxes']} boxes;",
        f"{told['samples']} pictures of each, {told['drawing_steps']} denoising steps; concepts learned by",
        f"`{told['training']}` in {told['learning_steps']} steps. By CLIP, the second judge in brackets. *Identity*:",
        "share of what the concept reaches at that place and size with no other region; *of single*: of what it",
        "reaches as a picture of its own, made as large; *kept*: as *identity*, with the base's level taken off;",
        "*taken*: boxes in which a concept of another box is likelier; *spill*: IA that the background gains.",
        "", "| drawn | " + " | ".join(title for _, title in BOXED) + " |", "|---" * (len(BOXED) + 1) + "|",
    ]  # fmt: skip
    for way, figures in found["ways"].items():
        cells = [_both(figures[name], name) for name, _ in BOXED]
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    for title, parts in (("number of regions", found["by_regions"]), ("picture size", found["by_size"])):
        lines += ["", f"Identity, presence by {title}:", "", f"| drawn | {' | '.join(parts)} |",
                  "|---" * (len(parts) + 1) + "|"]  # fmt: skip
        for way in found["ways"]:
            pairs = [
                (part[way]["identity_ratio"]["clip"], part[way]["presence"]["clip"])
                for part in parts.values()
            ]
            lines.append(
                f"| {way} | " + " | ".join(f"{100 * i:.0f} %, {100 * p:.0f} %" for i, p in pairs) + " |"
            )
    return lines


def methods_table(found: Mapping[str, Any]) -> list[str]:
    rows = found["rows"]
    lines = [
        "", f"## Ten concepts, {len(found['protocol']['seeds'])} seeds", "",
        "mini-CIFC: seven objects and three styles, learned one after another, in another order for each seed.",
        "Mean over concepts, then mean and standard deviation over seeds. IA and TA are cosines by the base's own",
        "CLIP; the second judge is trained without captions and apart from the base. Retention is against a plain",
        "LoRA of the concept's own, alone: what learning without consolidation and without other concepts reaches.",
        "Methods that carry one LoRA on, or sum all, are drawn their own way. Forgetting is – where concepts were",
        "judged at the end only. `cidm` is the default: R1 without R2; `R2 alone` has R2 in its place.", "",
        *_protocol(found["protocol"]),
        "", "| | " + " | ".join(title for _, title in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|",
    ]  # fmt: skip
    for row in ROWS:
        if row.name in rows:
            cells = [_cell(rows[row.name].get(figure)) for figure, _ in COLUMNS]
            lines.append(f"| {row.name}{_fewer(found, row.name)} | " + " | ".join(cells) + " |")
    return [*lines, *standing(rows), "", "![Retention by method](images/results-methods.png)"]


def standing(rows: Mapping[str, Any]) -> list[str]:
    """Which replay-free baselines the default is ahead of, and which not, by figure."""
    if "cidm" not in rows:
        return []
    lines = [
        "", "Where the default, `cidm`, stands: a baseline is behind or ahead when means differ by more than the",
        "larger of the two spreads.", "",
        "| figure | behind the default | no clear difference | ahead of the default |",
        "|---|---|---|---|",
    ]  # fmt: skip
    for figure, title in COLUMNS[:4]:
        places: dict[int, list[str]] = {1: [], 0: [], -1: []}
        for name in BASELINES:
            if name in rows and rows[name][figure]["mean"] is not None:
                places[_compared(rows["cidm"][figure], rows[name][figure], figure)].append(name)
        cells = [", ".join(places[place]) or "–" for place in (1, 0, -1)]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def _compared(ours: Mapping[str, Any], theirs: Mapping[str, Any], figure: str) -> int:
    """1 where ours is better by more than the spread, -1 where it is worse by more, else 0."""
    gap = ours["mean"] - theirs["mean"]
    if figure.startswith("forgetting"):
        gap = -gap
    spread = max(ours["sd"] or 0, theirs["sd"] or 0)
    return 0 if abs(gap) <= spread else 1 if gap > 0 else -1


def _fewer(found: Mapping[str, Any], name: str) -> str:
    """Of a row with fewer seeds than the others, how many."""
    seeds = len(found["rows"][name][COLUMNS[0][0]]["by_seed"])
    return "" if seeds == len(found["protocol"]["seeds"]) else f" ({seeds} seed{'s' * (seeds > 1)})"


def routed_table(found: Mapping[str, Any]) -> list[str]:
    lines = [
        "", "### Routed: the prompt names its concept", "",
        "Retention (confusion) with K concepts learned, by method of drawing, here against the same LoRA alone.",
        "*Identical*: concepts whose pictures are the same bytes right after learning and at the end, drawn `named`.",
        "",
    ]  # fmt: skip
    for training, parts in found.items():
        counts = list(parts.get("routed", {}))
        if not counts:
            continue
        methods = [name for name in parts["routed"][counts[0]] if name != "identical"]
        lines += [f"Learned by `{training}`:", "", "| K | identical | " + " | ".join(methods) + " |",
                  "|---" * (len(methods) + 2) + "|"]  # fmt: skip
        for count in counts:
            row = parts["routed"][count]
            same = f"{row['identical']['same']} of {row['identical']['of']}"
            lines.append(f"| {count} | {same} | " + " | ".join(_pair(row[name]) for name in methods) + " |")
        lines.append("")
    return lines


def composed_table(found: Mapping[str, Any]) -> list[str]:
    ways = {way: parts["composed"] for way, parts in found.items() if "composed" in parts}
    if not ways:
        return []
    lines = [
        "", "### Composed: several concepts in one prompt, no boxes", "",
        "Four scenes with four pictures each; each concept is looked for in parts of the picture. *IA*: with all",
        "named. *Of its own*: its gain over the class noun beside the gain of the same LoRA with it alone named,",
        "which is how much the concepts disturb each other. *Of plain*: beside the gain of a LoRA learned without",
        "consolidation, alone named, which is what comes out in the end. *Behind*: IA by which it is behind `cidm`.",
        "*Confusion*: pictures in which the part most like a concept is nearer to another's pictures, of all ten.",
        f"± is the standard error, groups taken as independent. `{WEAKER}`: the plain LoRAs with each of N at the",
        "N-th part of its weight.",
    ]  # fmt: skip
    for size, word in (("2", "Two"), ("3", "Three")):
        groups = next(iter(ways.values()))[size]["groups"]
        lines += ["", f"{word} together, {groups} groups:", "",
                  "| learned by | IA | of its own | of plain | behind | confusion |"
                  " IA, second judge | of its own | of plain | behind | confusion |", "|---" * 11 + "|"]  # fmt: skip
        for way, parts in ways.items():
            cells = [
                "–"
                if way == "cidm" and name == "behind"
                else "{:.3f} ± {:.3f}".format(*parts[size][judge][name])
                for judge in ("clip", "dino")
                for name in ("ia", "of_own", "of_plain", "behind", "confusion")
            ]
            lines.append(f"| `{way}` | " + " | ".join(cells) + " |")
    return lines


def static_table(found: Mapping[str, Any]) -> list[str]:
    lines = [
        "", "### Static: all concepts in one file", "",
        "Retention (confusion) by merge method, with K concepts in the file, against the same LoRAs alone.", "",
    ]  # fmt: skip
    for training, parts in found.items():
        counts = list(parts.get("static", {}))
        if not counts:
            continue
        methods = list(parts["static"][counts[0]])
        lines += [f"Learned by `{training}`:", "", "| K | " + " | ".join(methods) + " |",
                  "|---" * (len(methods) + 1) + "|"]  # fmt: skip
        for count in counts:
            cells = [_pair(parts["static"][count][name]) for name in methods]
            lines.append(f"| {count} | " + " | ".join(cells) + " |")
        lines.append("")
    return [*lines, "![Retention by number of concepts](images/results-promises.png)"]


def _protocol(told: Mapping[str, Any]) -> list[str]:
    return [
        f"{told['learning_steps']} training steps a concept; {told['prompts']} prompts with {told['samples']} pictures "
        f"each, {told['drawing_steps']} denoising steps."
    ]


def _cell(value: Mapping[str, Any] | None) -> str:
    if not value or value["mean"] is None:
        return "–"
    return f"{value['mean']:.3f}" + (f" ± {value['sd']:.3f}" if value["sd"] is not None else "")


def _both(value: Mapping[str, float | None], name: str) -> str:
    """By CLIP, and in brackets by the second judge: shares in percent, cosines as they are."""
    shown = [
        "–" if one is None else f"{one:.3f}" if name == "background" else f"{100 * one:.0f} %"
        for one in value.values()
    ]
    return shown[0] + "".join(f" ({one})" for one in shown[1:])


def _pair(value: Mapping[str, Any]) -> str:
    kept = value["retention"]["clip"]
    return ("–" if kept is None else f"{kept:.3f}") + f" ({100 * value['confusion']['clip']:.0f} %)"


def plot_methods(found: Mapping[str, Any], path: Path) -> None:
    """Retention of each row with its spread over seeds."""
    rows = [
        row.name
        for row in ROWS
        if row.name in found and found[row.name]["retention clip"]["mean"] is not None
    ]
    values = [found[name]["retention clip"] for name in rows]
    figure, axes = _figure(8, 0.35 * len(rows) + 1)
    axes.barh(
        rows[::-1],
        [v["mean"] for v in values][::-1],
        xerr=[v["sd"] or 0 for v in values][::-1],
        color="#4878a8",
    )
    axes.set_xlabel("retention")
    _save(figure, path)


def plot_promises(found: Mapping[str, Any], path: Path) -> None:
    """Retention by number of concepts, routed and static."""
    figure, axes = _figure(8, 4.5)
    for training, parts in found.items():
        for kind, names in (("routed", ("named", "official", "paper")), ("static", ("fuse", "mean", "sum"))):
            counts = list(parts.get(kind, {}))
            for name in names:
                points = [
                    (int(k), parts[kind][k][name]["retention"]["clip"])
                    for k in counts
                    if name in parts[kind][k]
                ]
                if points and training == "cidm":
                    axes.plot(*zip(*points, strict=True), marker="o", label=f"{kind}, {name}",
                              linestyle="-" if kind == "routed" else "--")  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(COUNTS, [str(count) for count in COUNTS], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("concepts learned")
    axes.set_ylabel("retention")
    axes.legend(fontsize=8)
    _save(figure, path)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
