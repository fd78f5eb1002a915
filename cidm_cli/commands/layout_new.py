"""`cidm layout new`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import CidmError, ExitCode
from ..terminal.output import Result, Table
from .invocation import Invocation, listed_names
from .layout_files import registry_if_any, write_layout

if TYPE_CHECKING:
    from cidm_registry import Registry


def _templates() -> list[str]:
    import cidm_templates

    return [*cidm_templates.layouts()]


def new(
    call: Invocation,
    template: Annotated[
        str | None,
        typer.Argument(
            metavar="[TEMPLATE]", help="What to begin with. None: list them.", autocompletion=_templates
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Where to; - prints it. [default: TEMPLATE.toml]"),
    ] = None,
    concepts: Annotated[
        str | None,
        typer.Option(
            "--concepts",
            metavar="NAME,NAME",
            help="Put these in place of the template's own.",
            autocompletion=listed_names,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> Result:
    """Begin a layout file with a template, or list the templates."""
    import cidm_templates

    if template is None:
        return _list()
    try:
        text = cidm_templates.layout(template)
    except LookupError:
        raise _no_such(template) from None
    registry = registry_if_any(call)
    if concepts is not None:
        text = _with_concepts(call, registry, template, text, [name.strip() for name in concepts.split(",")])

    from ..draw.canvas import picture_of
    from ..layout import load_layout
    from ..layout.templates import sized

    own = picture_of(load_layout(template, text).image.size, registry)
    if own.size and own.multiple:
        text = sized(text, own.size[0], own.multiple)
    layout = load_layout(template, text)
    path = write_layout(call, text, out or Path(f"{template}.toml"), force=force)
    for region in layout.regions:
        if region.mask is not None:
            folder = Path() if path is None else path.parent
            call.output.note(f"{folder / region.mask}: needs a grey image, white where {region.prompt} is")
    shown = [str(path)] if path else text.splitlines()
    return Result(data={"path": path, "template": template, "text": text}, human=shown, ids=shown)


def _list() -> Result:
    import cidm_templates

    about = {name: cidm_templates.about(name) for name in cidm_templates.layouts()}
    return Result(
        data={"templates": [{"name": name, "about": line} for name, line in about.items()]},
        human=[
            Table(("TEMPLATE", "ABOUT"), list(about.items())),
            "cidm layout new TEMPLATE writes TEMPLATE.toml",
        ],
        ids=list(about),
    )


def _no_such(template: str) -> CidmError:
    import cidm_templates

    from ..errors import nearest

    meant = nearest(template, cidm_templates.layouts())
    hint = f"did you mean {meant}?" if meant else "`cidm layout new` lists them"
    return CidmError(f"there is no template {template!r}", hint, ExitCode.NOT_FOUND)


def _with_concepts(
    call: Invocation, registry: Registry | None, template: str, text: str, names: list[str]
) -> str:
    from cidm_registry.names import canonical_key, display_name

    from ..layout.templates import filled, noun_of, slots
    from ..options.prompts import find_unknown, parse_prompt

    wanted = slots(text)
    if len(names) != len(wanted):
        shown = ", ".join(wanted)
        raise CidmError(
            f"--concepts: {template} has room for {len(wanted)} ({shown}), and {len(names)} were given",
            "`cidm layout new` lists templates for more and fewer",
            ExitCode.USAGE,
        )
    names = [display_name(name) for name in names]
    known = {canonical_key(one.name): one.class_noun for one in registry.records()} if registry else {}
    for name in names:
        unknown = (
            find_unknown(parse_prompt(f"<{name}>"), [one.name for one in registry.records()])
            if registry
            else None
        )
        if unknown is not None:
            call.output.warn(f"{unknown}" + (f"; {unknown.hint}" if unknown.hint else ""))
    nouns = [known.get(canonical_key(name)) or noun_of(name) for name in names]
    return filled(text, dict(zip(wanted, zip(names, nouns, strict=True), strict=True)))
