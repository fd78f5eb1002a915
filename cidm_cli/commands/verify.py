"""`cidm verify`."""

from ..errors import CidmError, ExitCode
from ..invocation import Invocation
from ..output import Result


def verify(call: Invocation) -> Result:
    """Read and check everything in the registry. Exit code 6 if anything is wrong."""
    registry = call.open_registry()
    problems = registry.verify()
    count = len(registry.listing()[0])
    failure = None
    if problems:
        failure = CidmError(
            f"{len(problems)} problem(s) in {registry.root}", problems[0].hint, ExitCode.REGISTRY
        )
    lines = [f"{problem.path}: {problem.message}; {problem.hint}" for problem in problems]
    return Result(
        data={"registry": registry.root, "concepts": count, "problems": problems},
        human=lines or [f"{registry.root} is sound: {count} concept(s)"],
        ids=[str(problem.path) for problem in problems],
        failure=failure,
    )
