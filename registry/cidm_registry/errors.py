"""What can go wrong in a registry. Each error says what it is about, and where known what to do next."""


class RegistryError(Exception):
    """Base of every error the registry raises.

    `message` is one line naming the thing; `hint` is the next step, or None where there is none.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotFound(RegistryError):
    """No such registry, concept or run."""


class Invalid(RegistryError):
    """Something handed in cannot be stored: the content of a blob, a draft, a folder."""


class InvalidName(Invalid):
    """A concept name that cannot be used."""


class Exists(RegistryError):
    """The name, or the registry, is already there."""


class Conflict(RegistryError):
    """The registry changed since the caller looked at it."""


class Damaged(RegistryError):
    """A file of the registry is missing, unreadable, or not what its name says."""


class Busy(RegistryError):
    """Another process holds the registry's lock."""


class NewerFormat(RegistryError):
    """The registry was written by a newer version of this program."""
