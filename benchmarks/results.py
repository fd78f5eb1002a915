"""Writes docs/results.md and docs/results.json from what the benchmarks of the protocol printed.

python -m benchmarks.continual --work W > continual.json
python -m benchmarks.continual --work W --set tune --data TUNE --sweep > sweep.json
python -m benchmarks.promises --work W --concepts DIR > promises.json
python -m benchmarks.apart --work W > apart.json
python -m benchmarks.carried --work W > carried.json
python -m benchmarks.layouts --work W > layouts.json
python -m benchmarks.results --continual continual.json --sweep sweep.json --promises promises.json \\
    --apart apart.json --carried carried.json --layouts layouts.json --out docs

What was run in parts, some rows or some counts at a time, is given as several files.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .continual import DEFAULT, TOKENS
from .promises import WEAKER
from .sets import FROZEN, JUDGE, TUNE

COLUMNS = (
    ("ia", "IA"), ("retention", "retention"), ("above_tokens", "of what the LoRA adds"),
    ("beside_default", "beside the default"), ("ta", "TA"), ("forgetting", "forgetting"),
    ("confusion", "confusion"), ("drift", "drift"),
)  # fmt: skip
BOXED = (
    ("identity_ratio", "identity"), ("single_ratio", "of single"), ("kept", "kept"),
    ("presence", "presence"), ("taken", "taken"), ("background", "spill"),
)  # fmt: skip


MET = (
    ("kept", "kept"), ("kept_beside", "beside `named`"), ("confusion", "confusion"), ("cut", "cut out"),
    ("cut_beside", "beside `named`"), ("all_found", "both found"),
)  # fmt: skip
FOUND = ("continual", "sweep", "promises", "apart", "carried", "layouts")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in FOUND:
        parser.add_argument(f"--{name}", type=Path, nargs="*")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    given = parser.parse_args()
    path = given.out / "results.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known["protocol"] = protocol()
    for name in FOUND:
        if files := getattr(given, name):
            known |= kept(name, together(files))
    path.write_text(json.dumps(known, indent=1) + "\n")
    (given.out / "results.md").write_text(page(known))
    print(json.dumps({"written": [str(path), str(given.out / "results.md")]}))


def protocol() -> dict[str, Any]:
    """Sets, seeds and intervals, as the benchmarks have them."""
    sets = {
        one.name: {
            "drawings": sorted(one.drawings),
            "styles": sorted(one.styles),
            "seeds": list(one.trainings),
        }
        for one in (TUNE, JUDGE)
    }
    intervals = (
        "95 %, Student's t of a jackknife that leaves out one concept, paired at equal prompts and seeds"
    )
    return {"sets": sets, "frozen": {k: dict(v) for k, v in FROZEN.items()}, "intervals": intervals}


def kept(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """What a benchmark printed, as docs/results.json has it."""
    if name == "continual":
        return {"rows": found["rows"], "parts": found["parts"], "continual": found["protocol"]}
    if name == "promises":
        own = found["promises"]
        return {
            "static": own["cidm"].get("static", {}), "routed": own["cidm"].get("routed", {}),
            "together": {way: parts["composed"] for way, parts in own.items() if "composed" in parts},
            "promises": found["protocol"],
        }  # fmt: skip
    if name == "apart":
        return {"composed": found["composed"], "apart": found["protocol"]}
    if name == "carried":
        return {"carried_away": found["rows"], "carried": found["protocol"]}
    if name == "layouts":
        own = found["ways"]["own"]
        return {
            name: {figure: own[figure]["clip"] for figure in ("identity_ratio", "presence")} | dict(found)
        }
    return {name: found}


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


def page(known: Mapping[str, Any]) -> str:
    """docs/results.md."""
    lines = [
        "# Results on the embedded base", "",
        "Settings were chosen on one set of drawings, prompts and seeds and judged on another. IA and TA are cosines",
        "by the base's own CLIP, the second judge's in brackets. *Retention*: share of what a plain LoRA, drawn by its",
        "name, has above the class noun; *of what the LoRA adds*: above its tokens with no LoRA at all. *Drift*: what",
        "a file does to prompts that name no concept, 1 - cosine. Intervals are 95 %, from leaving out concepts;",
        "*beside the default*: paired differences in IA. The numbers: `results.json`; what they mean:",
        "[measurements](measurements.md#reading-the-results); the figures: [evaluation](evaluation.md).",
        *findings(known),
    ]  # fmt: skip
    if "rows" in known:
        lines += ["", "## Methods", "", *_made(known["continual"]), "", *table(known["rows"])]
        lines += ["", "### The parts of the paper", "", *parts_table(known["parts"])]
    if "sweep" in known:
        chosen = ", ".join(known["sweep"]["chosen"].values())
        lines += ["", "### Weights, on the set for tuning", "", *_made(known["sweep"]["protocol"])]
        lines += [f"Chosen: {chosen}.", "", *table(known["sweep"]["rows"])]
    for name, title in (
        ("routed", "Routed: the prompt names its concept"),
        ("static", "Static: all in one file"),
    ):
        for count, rows in known.get(name, {}).items():
            lines += ["", f"## {title}, {count} concepts", "", *_made(known["promises"])]
            if same := rows.get("identical"):
                lines += [
                    f"Same bytes right after learning and at the end: {same['same']} of {same['of']}.",
                    "",
                ]
            lines += table({row: found for row, found in rows.items() if row != "identical"})
    if "composed" in known:
        lines += apart_tables(known["composed"]["two"], known["apart"])
    if known.get("together"):
        lines += together_tables(known["together"])
    if "carried_away" in known:
        lines += ["", "## Carried away: files drawn by stock diffusers", "", *_made(known["carried"]), ""]
        lines += table(known["carried_away"])
    if "layouts" in known:
        lines += layouts_tables(known["layouts"])
    return "\n".join(lines) + "\n"


def table(rows: Mapping[str, Any]) -> list[str]:
    """Rows of figures; columns that no row has are left out."""
    said = {
        name: {figure: cell(row.get(figure) or {}) for figure, _ in COLUMNS} for name, row in rows.items()
    }
    columns = [pair for pair in COLUMNS if any(row[pair[0]] != "–" for row in said.values())]
    lines = ["| | " + " | ".join(title for _, title in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {name} | " + " | ".join(row[figure] for figure, _ in columns) + " |" for name, row in said.items()
    ]
    return lines


def cell(by_judge: Mapping[str, Mapping[str, float] | None]) -> str:
    """By CLIP, and in brackets by the second judge: value and reach of the interval."""
    said = []
    for judge in ("clip", "all", "dino"):
        if found := by_judge.get(judge):
            reach = f" ± {found['high'] - found['value']:.3f}" if "high" in found else ""
            said.append(f"{found['value']:.3f}{reach}")
    return "–" if not said else said[0] + "".join(f" ({more})" for more in said[1:])


def parts_table(parts: Mapping[str, Any]) -> list[str]:
    """What is on by default, and what each brings."""
    lines = ["| part | on by default | brings in IA | measured as |", "|---|---|---|---|"]
    for name, found in parts.items():
        on = "yes" if found["default"] else "no"
        lines.append(f"| {name} | {on} | {cell(found['brings'])} | {found['with']} less {found['without']} |")
    return lines


def _made(told: Mapping[str, Any]) -> list[str]:
    return [
        f"`{told['command']}`: {told['learning_steps']} training steps a concept, {told['prompts']} prompts with "
        f"{told['samples']} pictures each, {told['drawing_steps']} sampling steps.", ""
    ]  # fmt: skip


def apart_tables(two: Mapping[str, Any], told: Mapping[str, Any]) -> list[str]:
    """Two concepts in one prompt, by method of drawing."""
    lines = [
        "", "## Composed: two concepts in one prompt, no boxes", "", *_made(told),
        "*Kept*: the share of each concept's gain alone that is left with both named, in the part of the image that is",
        "most like it; *confusion*: images in which that part is more like the other; *cut out*: the same share where",
        "each is looked for and cut out, nothing where it is missing.",
    ]  # fmt: skip
    for kind, title in (("lookalike", "Look-alikes, of one class noun"), ("unlike", "Unlike pairs")):
        if kind in two:
            lines += ["", f"{title}:", "", "| | " + " | ".join(name for _, name in MET) + " | time |"]
            lines += ["|---" * (len(MET) + 2) + "|"]
        for method, found in two.get(kind, {}).items():
            by_figure = {
                figure: {judge: found[judge][figure] for judge in ("clip", "dino") if judge in found}
                for figure, _ in MET
            }
            cells = ["–" if method == "named" and "beside" in f else cell(by_figure[f]) for f, _ in MET]
            lines.append(f"| `{method}` | {' | '.join(cells)} | {found['time_ratio']:.2f} × |")
    return lines


def findings(known: Mapping[str, Any]) -> list[str]:
    """What the tables say, in a sentence each, with the intervals."""
    said = []
    rows = known.get("rows", {})
    if "parts" in known:
        said += [
            f"{name} ({'on' if part['default'] else 'off'} by default) brings {cell(part['brings'])} in IA."
            for name, part in known["parts"].items()
        ]
    if TOKENS in rows:
        said.append(
            f"Tokens with no LoRA at all keep {cell(rows[TOKENS]['retention'])} of a plain LoRA's gain."
        )
    for word, there in (
        ("behind the default", lambda f: f["high"] < 0),
        ("ahead of the default", lambda f: f["low"] > 0),
    ):
        names = [
            name for name, row in rows.items()
            if name not in ("base", DEFAULT) and "low" in row.get("beside_default", {}).get("clip", {})
            and there(row["beside_default"]["clip"])
        ]  # fmt: skip
        if names:
            said.append(f"In IA by CLIP, {word} beyond the interval: {', '.join(names)}.")
    for count, rows in known.get("static", {}).items():
        merges = {name: row for name, row in rows.items() if "drift" in row}
        if merges:
            best = max(merges, key=lambda name: merges[name]["above_tokens"]["clip"]["value"])
            said.append(
                f"Of {count} concepts in one file, `{best}` keeps most: {cell(merges[best]['above_tokens'])} of what "
                "the LoRAs add above the tokens."
            )
    for kind, word in (("lookalike", "look-alikes"), ("unlike", "unlike concepts")):
        for method, found in known.get("composed", {}).get("two", {}).get(kind, {}).items():
            kept, confused = (
                cell({j: found[j][f] for j in ("clip", "dino") if j in found}) for f in ("kept", "confusion")
            )
            said.append(f"Two {word} in one prompt keep {kept} by `{method}`, confusion {confused}.")
    for name, row in known.get("carried_away", {}).items():
        if name.startswith(("exported", "merged")):
            said.append(f"Drawn by stock diffusers ({name}): {cell(row['retention'])} is kept.")
    return ["", "## Findings", "", *(f"- {one}" for one in said)] if said else []


def together_tables(ways: Mapping[str, Any]) -> list[str]:
    lines = [
        "", "## By way of learning", "",
        "Four scenes with four pictures each; each concept is looked for in parts of the picture. *IA*: with all",
        "named. *Of its own*: its gain over the class noun beside the gain of the same LoRA with it alone named,",
        "which is how much the concepts disturb each other. *Of plain*: beside the gain of a LoRA learned without",
        "consolidation, alone named, which is what comes out in the end. *Behind*: IA by which it is behind `cidm`.",
        "*Confusion*: pictures in which the part most like a concept is nearer to another's pictures, of all ten.",
        f"± is the standard error, from leaving out concepts. `{WEAKER}`: the plain LoRAs with each of N at the",
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


def _both(value: Mapping[str, float | None], name: str) -> str:
    """By CLIP, and in brackets by the second judge: shares in percent, cosines as they are."""
    shown = [
        "–" if one is None else f"{one:.3f}" if name == "background" else f"{100 * one:.0f} %"
        for one in value.values()
    ]
    return shown[0] + "".join(f" ({one})" for one in shown[1:])


if __name__ == "__main__":
    main()
