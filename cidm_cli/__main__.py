"""The program from its first moment: `cidm`, `python -m cidm_cli`, also what `accelerate launch -m` runs."""


def run() -> None:
    """Runs the process's own command line and ends it with its exit code."""
    # Imported here, so that nothing is before the boundary.
    try:
        from .machine.interrupts import end_while_loading

        end_while_loading()
        from .shell.main import run as program

        program()
    except KeyboardInterrupt:
        from .machine.interrupts import end_interrupted

        end_interrupted()


if __name__ == "__main__":
    run()
