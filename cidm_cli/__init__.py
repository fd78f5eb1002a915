"""cidm: continually teach a text-to-image model new concepts, and draw them together."""

__version__ = "0.1.0"
