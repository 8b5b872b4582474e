"""The command line. Only options and help are here: what they do is in `bayeslmm.commands`.

Nothing heavy is imported until a command runs, so that help comes at once.
"""

from bayeslmm.cli.application import app

# Each gives the application its commands, in the order of the help.
from bayeslmm.cli import start, relatedness, models, genome, sampling, results  # noqa: F401 # isort: skip

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line."""
    app()
