"""Writes docs/options.md from the declarations of options: python -m tools.options_page"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path

from cidm_cli.bases import family
from cidm_cli.options.declared import WORDS, Option, Short, Written, declared
from cidm_cli.options.settings import TABLES

PAGE = Path(__file__).parent.parent / "docs" / "options.md"
FAMILIES = {"mini": "mini", "sd15": "SD-1.x, SDXL", "flux2-klein": "FLUX.2 klein", "z-image": "Z-Image"}
HEAD = """# Options

All options that settings may hold; `python -m tools.options_page` writes this page. `[learn] steps` in a settings file
and `CIDM_LEARN_STEPS` in the environment [are](commands.md#where-settings-come-from) `cidm learn --steps`.
"""


def page() -> str:
    """The page's text."""
    return "\n".join([HEAD, *(line for table in TABLES for line in _section(table))]).rstrip() + "\n"


def _section(table: str) -> Iterator[str]:
    title = {"": "every command that computes", "draw": "generate"}.get(table, table)
    yield f"## {title}\n\n{f'`[{table}]`' if table else 'At the top of a file, before all tables.'}\n"
    groups: dict[str, list[Option]] = {}
    for option in declared(TABLES[table]).values():
        groups.setdefault(option.group, []).append(option)
    for head, options in groups.items():
        yield f"| {head} | value | default | |\n|---|---|---|---|"
        for option in options:
            yield f"| {_flags(option)} | {_value(option)} | {_default(option, table)} | {option.line} |"
        yield ""


def _flags(option: Option) -> str:
    short = option.mark(Short)
    off = f", `--no-{option.flag[2:]}`" if option.kind is bool else ""
    return f"`{option.flag}`{off}" + (f", `{short.flag}`" if short else "")


def _value(option: Option) -> str:
    if option.choices:
        return ", ".join(f"`{choice}`" for choice in option.choices)
    kind = "" if option.kind is bool or option.mark(Written) else WORDS[option.kind].removeprefix("a ")
    return f"{kind} {option.rule}".strip()


def _default(option: Option, table: str) -> str:
    families = [family(kind) for kind in FAMILIES]
    own = [(one.learn if table == "learn" else one.draw).get(option.name) for one in families]
    if option.default is MISSING and None not in own and option.kind is not bool:
        return ", ".join(f"{value} ({name})" for value, name in zip(own, FAMILIES.values(), strict=True))
    return option.usual


if __name__ == "__main__":
    PAGE.write_text(page())
