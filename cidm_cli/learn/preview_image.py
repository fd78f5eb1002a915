"""The image that a concept's record keeps: what it looks like, drawn once it is learned."""

from __future__ import annotations

from cidm_registry import Draft, Record, RegistryError

from ..draw import images
from ..draw.jobs import Job
from ..errors import CidmError, ExitCode
from ..machine.session import Session
from ..models.base import Base
from ..options.draw import resolve_draw


def prompt_of(record: Draft) -> str:
    """The plainest prompt that shows a concept; a style is shown on a house."""
    article = "an" if record.class_noun[:1].lower() in "aeiou" else "a"
    return (
        f"{article} <{record.name}> of a house" if record.style else f"a photo of {article} <{record.name}>"
    )


def with_preview_image(session: Session, base: Base, record: Record) -> Record:
    """Draws a committed concept as the base draws by default, from seed 0, and keeps the image in its record.

    Where that fails the record stays without one, and a warning says why.

    Raises:
        CidmError: INTERRUPTED by Ctrl-C; the concept stays.
    """
    job = Job(prompt_of(record), resolve_draw({}, session.kind, base.pixels))
    try:
        with session.stage(f"drawing <{record.name}>", images.work([job])) as step:
            (drawn,) = images.draw(session.registry, base, [job], on_step=step)
        return session.registry.annotate(record, preview=drawn.content)
    except KeyboardInterrupt:
        raise CidmError(
            f"<{record.name}> is learned; interrupted while its preview image was drawn",
            code=ExitCode.INTERRUPTED,
        ) from None
    except (CidmError, RegistryError, OSError, RuntimeError) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        session.listener.warn(f"<{record.name}> is learned, but has no preview image: {why}")
        return record
