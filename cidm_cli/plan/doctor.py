"""What this machine can do, line by line: what is there, what is missing, what to do about it. Nothing is changed."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from cidm_registry import Busy, NotFound, Registry, RegistryError

from ..errors import CidmError
from ..models import hub
from ..models.identity import MINI, folder_of, known, vae_of
from ..options.settings import SETTINGS, USER_FILE, WORKING_FILE, Settings
from ..terminal.output import readable_bytes

OK, WARN, FAIL = "ok", "warn", "fail"
OPTIONAL = {
    "bitsandbytes": "--optimizer adamw8bit",
    "matplotlib": "plots and heat maps",
    "tensorboard": "TensorBoard logs",
}
"""Packages that need not be there, and what they are for."""
LITTLE_SPACE = 2_000_000_000
"""Bytes of free disk below which a warning is due: less than a large base takes."""
TRAINING_LOCK = "training.lock"
HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    state: str
    """ "ok", "warn" or "fail"; "fail" is what nothing works without."""
    what: str
    """What was looked at."""
    found: str
    """What it is."""
    fix: str = ""
    """What to do about it, where something is to do."""


def examine(
    settings: Settings, registry: Path, *, device: str, precision: str, online: bool
) -> list[Finding]:
    """Everything, in the order it is shown; the network is used only if ``online``."""
    return [
        *packages(),
        *devices(device, precision),
        *caches(os.environ, registry),
        *origins(settings),
        *registries(registry),
        *([reach()] if online else []),
    ]


def packages() -> list[Finding]:
    """Python, the libraries, and whether they are new enough."""
    from packaging.requirements import Requirement

    out = [Finding(OK, "python", f"{platform.python_version()} on {platform.platform(terse=True)}")]
    try:
        needed = [Requirement(line) for line in requires("cidm") or ()]
    except PackageNotFoundError:
        needed = []
        out.append(
            Finding(
                WARN, "cidm", "runs without being installed: versions are not checked", "pip install -e ."
            )
        )
    for requirement in sorted(needed, key=lambda one: one.name):
        # Those of extras have a condition that does not hold by itself.
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            out.append(_package(requirement.name, str(requirement.specifier), requirement.specifier.contains))
    known = {finding.what for finding in out}
    for name, purpose in OPTIONAL.items():
        if name not in known:
            there = find_spec(name) is not None
            missing = f"not installed; needed for {purpose}"
            out.append(Finding(OK, name, _version(name) if there else missing))
    return out


def _package(name: str, wanted: str, fits: object) -> Finding:
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(FAIL, name, "not installed", f"pip install '{name}{wanted}'")
    assert callable(fits)
    if not fits(found, prereleases=True):
        return Finding(FAIL, name, f"{found}, and {wanted} is needed", f"pip install '{name}{wanted}'")
    return Finding(OK, name, found)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "of unknown version"


def devices(device: str, precision: str) -> list[Finding]:
    """What can be computed on, and what the settings choose of it."""
    try:
        import torch

        from ..machine.hardware import free_memory
        from ..models.base import choose_compute, choose_device, fast_bfloat16
    except Exception as error:
        # A torch that does not fit its machine or its libraries fails in many ways.
        first = next(iter(str(error).splitlines()), type(error).__name__)
        return [
            Finding(FAIL, "torch", f"cannot be imported ({first})", "install it again: https://pytorch.org")
        ]
    free = free_memory(torch.device("cpu"))
    memory = f", {readable_bytes(free)} of memory free" if free is not None else ""
    amx = "bfloat16 is fast (AMX)" if fast_bfloat16() else "bfloat16 is slow"
    out = [Finding(OK, "cpu", f"{torch.get_num_threads()} threads of {os.cpu_count()} cores{memory}; {amx}")]
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        half = "bfloat16" if about.major >= 8 else "float16, no fast bfloat16"
        room = f"{readable_bytes(torch.cuda.mem_get_info(number)[0])} of {readable_bytes(about.total_memory)} free"
        told = f"{about.name}, {room}, compute capability {about.major}.{about.minor}; {half}"
        out.append(Finding(OK, f"cuda:{number}", told))
    if not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        built = "for CPUs only" if torch.version.cuda is None else f"for CUDA {torch.version.cuda}"
        told = f"there is an NVIDIA driver, and torch {torch.__version__}, made {built}, sees no GPU"
        out.append(Finding(WARN, "cuda", told, "install the torch of your CUDA version: https://pytorch.org"))
    try:
        chosen = choose_device(device)
        compute = str(choose_compute(precision, chosen)).removeprefix("torch.")
    except CidmError as error:
        return [*out, Finding(FAIL, "chosen", error.message, error.hint or "")]
    told = f"--device {device} is {chosen}, --precision {precision} is {compute}"
    slow = chosen.type == "cpu"
    hint = "large bases want a GPU; mini does not" if slow else ""
    return [*out, Finding(OK, "chosen", told, hint)]


def caches(environment: Mapping[str, str], registry: Path) -> list[Finding]:
    """Free disk where things are kept, and what the hub is told. A token is not shown."""
    from huggingface_hub import constants, get_token

    out = []
    for what, place in (("registry's disk", registry), ("hub's cache", Path(constants.HF_HUB_CACHE))):
        existing = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
        free = shutil.disk_usage(existing).free
        state, fix = (WARN, "free some space") if free < LITTLE_SPACE else (OK, "")
        out.append(Finding(state, what, f"{place}: {readable_bytes(free)} free", fix))
    home = environment.get("HF_HOME")
    told = [f"HF_HOME {home}" if home else "HF_HOME not set", "a token" if get_token() else "no token"]
    told.append("offline (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else "online")
    out.append(Finding(OK, "hub", ", ".join(told)))
    there = [name for name, repository in known().items() if hub.cached(repository) is not None]
    out.append(Finding(OK, "bases here", ", ".join((MINI, *there))))
    return out


def origins(settings: Settings) -> list[Finding]:
    """The settings files that were read or are broken, and where each setting that is set comes from."""
    mend = "correct it; until then it is as if the file were not there"
    out = [Finding(FAIL, "settings", fault.message, fault.hint or mend) for fault in settings.faults]
    files = [str(path) for path, _ in settings.files]
    if files or not out:
        told = ", ".join(files) if files else f"no {WORKING_FILE} here and no {USER_FILE}"
        out.append(Finding(OK, "settings", told))
    for name in SETTINGS:
        try:
            found = settings.find(name)
        except CidmError as error:
            out.append(Finding(FAIL, name, error.message, error.hint or "correct it, or unset it"))
            continue
        if found is not None:
            out.append(Finding(OK, name, f"{found.value} (from {found.source})"))
    return out


def registries(path: Path) -> list[Finding]:
    """Whether there is a registry, it can be read and written, and its base is there. `cidm verify` looks closer."""
    try:
        registry = Registry.open(path)
        records, problems = registry.listing()
    except NotFound:
        return [Finding(WARN, "registry", f"none in {path}", "make one: cidm init")]
    except RegistryError as error:
        return [Finding(FAIL, "registry", error.message, error.hint or "")]
    writable = "can be written" if registry.writable() else "cannot be written"
    told = f"{path}: {len(records)} concepts, {writable}, {_lock(registry)}"
    if problems:
        first = Finding(
            FAIL, "registry", f"{told}; {len(problems)} unreadable records", "cidm verify tells which"
        )
    else:
        fix = "" if registry.writable() else "check the folder's permissions"
        first = Finding(WARN if fix else OK, "registry", told, fix)
    try:
        place = folder_of(registry.base)
        vae_of(registry.base)
    except CidmError as error:
        return [first, Finding(FAIL, "its base", error.message, error.hint or "")]
    return [first, Finding(OK, "its base", f"{registry.base.source} ({registry.base.kind}), in {place}")]


def _lock(registry: Registry) -> str:
    # Asking for a lock makes its file: where there is none, nobody has it.
    if not (registry.root / TRAINING_LOCK).exists():
        return "nobody learns in it"
    try:
        with registry.training_lock(0):
            return "nobody learns in it"
    except Busy:
        return "a concept is being learned in it"
    except RegistryError:
        return "its lock cannot be taken"


def reach() -> Finding:
    """Whether the hub answers."""
    import urllib.request

    try:
        with urllib.request.urlopen(f"{HUB}/api/models?limit=1", timeout=10) as answer:
            return Finding(OK, "hub's site", f"{HUB} answers ({answer.status})")
    except (OSError, ValueError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        return Finding(
            WARN, "hub's site", f"{HUB} does not answer ({first})", "what its cache holds works offline"
        )


def worst(findings: Iterable[Finding]) -> str:
    """The gravest state of all."""
    order = (OK, WARN, FAIL)
    return max((finding.state for finding in findings), key=order.index, default=OK)
