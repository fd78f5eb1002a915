"""cidm: continually teach a text-to-image model new concepts, and draw them together.

The door for Python programs is ``Workspace``: ``from cidm_cli import Workspace``.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["CidmError", "Layout", "Workspace", "__version__"]

if TYPE_CHECKING:
    from .api import Workspace
    from .errors import CidmError
    from .layout import Layout


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: whoever imports a part of the package pays for that part alone.
    if name == "Workspace":
        from .api import Workspace

        return Workspace
    if name == "CidmError":
        from .errors import CidmError

        return CidmError
    if name == "Layout":
        from .layout import Layout

        return Layout
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
