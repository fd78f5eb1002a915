"""`python -m cidm_cli`, also what `accelerate launch -m` runs."""

from .main import run

run()
