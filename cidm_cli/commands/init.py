"""`cidm init`."""

from typing import Annotated

import typer

from ..errors import CidmError
from ..invocation import Invocation
from ..output import Result

DEFAULT_BASE = "mini"


def init(
    call: Invocation,
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="BASE", help=f"The model to learn on. [default: {DEFAULT_BASE}]"),
    ] = None,
    vae: Annotated[
        str, typer.Option("--vae", metavar="VAE", help="A VAE to use in place of the base's own.")
    ] = "",
) -> Result:
    """Make a registry for concepts learned on one base.

    BASE is `mini`, the small model that comes along; `sd15`, `sdxl` or OWNER/NAME[@REVISION], fetched from the
    Hugging Face hub unless it is there; a diffusers folder; or a single .safetensors checkpoint. VAE is a folder or
    OWNER/NAME on the hub. A registry that is already there for the same base is left as it is.
    """
    from cidm_registry import Exists, Registry
    from cidm_registry.disk import Disk

    from ..models.identity import identify

    if base is None:
        found = call.settings.find("base")
        base = DEFAULT_BASE if found is None else found.value
    reference = identify(base, vae, call.output.note)
    path = call.registry_path
    try:
        registry = Registry.create(path, reference, disk=Disk(call.output.warn))
        created = True
    except Exists:
        registry = Registry.open(path)
        created = False
    if registry.base.fingerprint != reference.fingerprint:
        raise CidmError(
            f"{path} is a registry for another base, {registry.base.source}",
            "give another folder with --registry",
        )
    verb = "made" if created else "there already is"
    return Result(
        data={"registry": registry.root, "base": registry.base, "created": created},
        human=[f"{verb} a registry for {registry.base.source} in {registry.root}"],
        ids=[str(registry.root)],
    )
