"""Figures of the tables, with their intervals: of the same concepts, prompts and seeds, drawn in several ways.

Concepts are what another experiment would have others of: an interval comes from leaving out one concept at a time,
all its prompts and seeds together. Two ways are compared in pairs: difference by difference, concept by concept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist, fmean
from typing import Any

import numpy as np

Seen = Mapping[str, Mapping[str, float]]
"""One figure of a way of drawing: by judge (or ``all``) and concept, mean over prompts, pictures and seeds."""
Results = Mapping[str, Sequence[Mapping[str, Any]]]
"""Evaluations by row, one for each seed."""
Pick = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""The figures that are meant, of a concept of an evaluation."""
Told = dict[str, float]
"""``value``, and the ends ``low`` and ``high`` of its 95 % interval."""


def jackknife(
    figure: Callable[[np.ndarray], float], table: np.ndarray, without: np.ndarray
) -> tuple[float, float]:
    """A figure of a table's columns [..., rows] and its standard error.

    Args:
        without: [times, rows]: the rows that are left out, each time.
    """
    each = np.array([figure(table[..., ~out]) for out in without])
    error = np.sqrt((len(each) - 1) / len(each) * ((each - each.mean()) ** 2).sum())
    return float(figure(table)), float(error)


def told(figure: Callable[[np.ndarray], float], *columns: Mapping[str, float]) -> Told:
    """A figure of columns by concept, of the concepts that all of them have."""
    names = sorted(set.intersection(*(set(column) for column in columns)))
    table = np.array([[column[name] for name in names] for column in columns])
    return interval(figure, table, np.eye(len(names), dtype=bool))


def interval(figure: Callable[[np.ndarray], float], table: np.ndarray, without: np.ndarray) -> Told:
    """As ``jackknife``, with the ends of the interval; of one concept there is none."""
    if len(without) < 2:
        return {"value": float(figure(table))}
    value, error = jackknife(figure, table, without)
    reach = student(len(without) - 1) * error
    return {"value": value, "low": value - reach, "high": value + reach}


def student(freedom: int) -> float:
    """The 97.5 % point of Student's t, by its expansion about the normal's; exact for one degree of freedom."""
    if freedom == 1:
        return 12.706
    z = NormalDist().inv_cdf(0.975)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))


def mean(own: Mapping[str, float]) -> Told:
    return told(lambda t: t[0].mean(), own)


def difference(own: Mapping[str, float], other: Mapping[str, float]) -> Told:
    """Mean of the paired differences."""
    return told(lambda t: (t[0] - t[1]).mean(), own, other)


def share(own: Mapping[str, float], floor: Mapping[str, float], whole: Mapping[str, float]) -> Told | None:
    """How much of what ``whole`` has above ``floor`` is there: a ratio of means. None where that is nothing."""
    if fmean(whole.values()) - fmean(floor.values()) < 0.01:
        return None
    return told(lambda t: (t[0] - t[1]).mean() / (t[2] - t[1]).mean(), own, floor, whole)


def final(concept: Mapping[str, Any]) -> Mapping[str, Any]:
    """The cell of a concept's last state, of ``Evaluation.to_json``."""
    cell: Mapping[str, Any] = concept["states"][max(concept["states"], key=int)]
    return cell


def seen(results: Sequence[Mapping[str, Any]], pick: Pick, figure: str) -> Seen:
    """A figure from evaluations, one for each seed; a concept of which it is not known is left out."""
    values: dict[str, dict[str, list[float]]] = {}
    for concept in (concept for result in results for concept in result["concepts"]):
        found = pick(concept)[figure]
        for judge, value in (found if isinstance(found, Mapping) else {"all": found}).items():
            if value is not None:
                values.setdefault(judge, {}).setdefault(concept["key"], []).append(value)
    return {judge: {key: fmean(each) for key, each in own.items()} for judge, own in values.items()}


def table(found: Results, *, named: str, tokens: str, default: str | None = None) -> dict[str, Any]:
    """What stands in every table, by row, figure and judge; a row ``base``, of the class noun, is added.

    ``ia``; ``retention``, the share of what the concept's own LoRA has above the base, and ``above_tokens``, above its
    tokens alone; ``beside_default``, IA paired; ``ta``, ``confusion``, and ``forgetting`` where it is known.

    Args:
        found: evaluations (``Evaluation.to_json``) by row, one for each seed.
        named: the row of the concept's own LoRA, drawn by name.
        tokens: the row of its tokens with no LoRA at all.
        default: the row of the program's default.
    """
    pick: dict[str, Pick] = {"base": lambda concept: concept["base"], **dict.fromkeys(found, final)}
    results = {"base": found[named], **found}
    ia = {name: seen(results[name], pick[name], "ia") for name in results}
    out: dict[str, Any] = {}
    for name, own in ia.items():
        row = out[name] = {
            "ia": {judge: mean(one) for judge, one in own.items()},
            "retention": {j: share(one, ia["base"][j], ia[named][j]) for j, one in own.items()},
            "above_tokens": {j: share(one, ia[tokens][j], ia[named][j]) for j, one in own.items()},
        }
        if default in ia:
            row["beside_default"] = {j: difference(one, ia[default][j]) for j, one in own.items()}
        for figure in ("ta", "confusion"):
            row[figure] = {j: mean(one) for j, one in seen(results[name], pick[name], figure).items()}
        forgot = {} if name == "base" else seen(results[name], dict, "forgetting")
        # Where only the last state was drawn, it is known of the newest alone, which had no time to be forgotten.
        row["forgetting"] = {j: mean(one) for j, one in forgot.items() if len(one) == len(own[j])}
    return out
