"""A command's help page: plain text, its options under heads, an example at the end."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from ..options.computing import COMPUTING
from ..options.declared import BASELINES

EVERYWHERE = "In every command"
LAST = (COMPUTING, EVERYWHERE, BASELINES)
"""Heads that come after all others, in this order."""

EXAMPLES = {
    "demo": "cidm demo -o demo",
    "init": "cidm init --base sd15 --registry concepts",
    "learn": "cidm learn dog2 photos/dog2 --class dog",
    "generate": 'cidm generate -p "a <dog2> on the beach" -n 4 -o pictures',
    "stylize": "cidm stylize house.jpg --style ink --strength 0.6",
    "edit": "cidm edit room.jpg --concept dog2 --box 0,0.5,0.5,1",
    "explain": 'cidm explain "a <dog2> beside a <cat>" -o layers.png',
    "merge": "cidm merge dog2 cat -o both.safetensors",
    "eval": "cidm eval --data photos -n 8",
    "export": "cidm export dog2 --to diffusers -o dog2.safetensors",
    "import": "cidm import dog2.safetensors --as dog2 --class dog",
    "list": "cidm list --json",
    "show": "cidm show dog2",
    "rm": "cidm rm dog2 --dry-run",
    "restore": "cidm restore dog2",
    "rename": "cidm rename dog2 rex",
    "doctor": "cidm doctor --online",
    "estimate learn": "cidm estimate learn --base sdxl --device cuda",
    "estimate generate": 'cidm estimate generate -p "a <dog2>" --base sdxl',
    "verify": "cidm verify",
    "gc": "cidm gc --dry-run",
    "path": "cidm path dog2",
    "layout new": "cidm layout new side-by-side --concepts dog2,cat -o two.toml",
    "layout check": "cidm layout check two.toml",
    "layout show": "cidm layout show two.toml -o two.png",
    "layout import": "cidm layout import workflow.json -o two.toml",
    "studio": "cidm studio --registry concepts -o pictures",
}
"""Of each command."""


class Page(TyperCommand):
    """A command with such a page. `typer` groups options only where it prints with a terminal library."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes arguments and options, those of a group together."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                kind = "Arguments" if param.param_type_name == "argument" else "Options"
                head = EVERYWHERE if param.name == "help" else getattr(param, "rich_help_panel", None)
                groups.setdefault(head or kind, []).append(record)
        for head in sorted(groups, key=lambda head: LAST.index(head) if head in LAST else -1):
            with formatter.section(head):
                formatter.write_dl(groups[head])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Writes the example on one line, to be copied."""
        if self.epilog:
            with formatter.section("Example"):
                formatter.write(f"{'':{formatter.current_indent}}{self.epilog}\n")
