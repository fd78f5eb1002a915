"""Where this program keeps what it could make again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder that CIDM_CACHE names, else `cidm` in the user's cache folder; it may not be there yet."""
    if said := os.environ.get("CIDM_CACHE"):
        return Path(said).expanduser().resolve()
    from platformdirs import user_cache_path

    return user_cache_path("cidm", appauthor=False)
