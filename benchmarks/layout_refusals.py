"""How long malformed layouts take to be refused, each of tests/support/malformed.toml. Prints one JSON object.

``mean_ms`` and ``slowest_ms`` are processor time, the best of ``rounds`` for each layout; ``slowest`` names one.
``refused`` of ``cases`` were refused at all, with the line that the table says.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import tomllib
from pathlib import Path
from typing import Any

from cidm_cli.errors import CidmError
from cidm_cli.layout import load_layout

TABLE = Path(__file__).parents[1] / "tests" / "support" / "malformed.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    cases = tomllib.loads(TABLE.read_text(encoding="utf-8"))["case"]
    refusal("", 0)  # what is loaded at first use is loaded
    milliseconds, refused = {}, 0
    for case in cases:
        text = case["text"] + case.get("unit", "") * case.get("times", 0) + case.get("tail", "")
        rounds = [refusal(text, case["line"]) for _ in range(given.rounds)]
        milliseconds[case["name"]] = 1000 * min(seconds for seconds, _ in rounds)
        refused += all(right for _, right in rounds)
    slowest = max(milliseconds, key=lambda name: milliseconds[name])
    report: dict[str, Any] = {
        "cases": len(cases),
        "refused": refused,
        "mean_ms": round(statistics.mean(milliseconds.values()), 3),
        "slowest_ms": round(milliseconds[slowest], 3),
        "slowest": slowest,
        "rounds": given.rounds,
    }
    print(json.dumps(report))


def refusal(text: str, line: int) -> tuple[float, bool]:
    """Processor seconds until a layout is refused, and whether it was, with its line."""
    place = f"scene.toml:{line}: " if line else "scene.toml: "
    started = time.process_time()
    try:
        load_layout("scene.toml", text)
    except CidmError as error:
        return time.process_time() - started, str(error).startswith(place)
    return time.process_time() - started, False


if __name__ == "__main__":
    main()
