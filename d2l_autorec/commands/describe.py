"""Describe a file of ratings: ``python -m d2l_autorec.describe``."""

from collections.abc import Sequence

from . import cli
from .checks import LAYOUT
from .cli import flag
from .process import show_notes
from .results import publish


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command, by default with the process's own arguments."""
    args = make_parser().parse_flags(argv)
    show_notes(quiet=True)
    # Only now, so that --help and a bad flag need not wait for NumPy.
    from ..ratings import read_ratings
    from ..serving import save_figure
    from . import description

    layout = {name: getattr(args, name) for name in LAYOUT}
    ratings = read_ratings(args.ratings, **layout)
    publish(
        "\n".join(description.lines(ratings, args.duplicates)),
        (args.plot, lambda file: save_figure(description.chart(ratings), file)),
    )


def make_parser() -> cli.Parser:
    """Make the parser of the flags."""
    last = {**cli.RATINGS["--duplicates"], "default": "last"}
    reading = {**cli.RATINGS, "--duplicates": last}
    file = {"ratings": {**reading.pop("--ratings"), "type": str}}
    plot = flag(
        "draw the values, and the ratings of users and items (.png, .svg or .pdf)",
        cli.plot_file,
    )
    return cli.Parser(
        prog="python -m d2l_autorec.describe",
        description="Describe a file of ratings: sizes, values, ratings of users and "
        "items, repeated pairs, times, and which preset fits it.",
        groups={"file": file, "reading": reading, "output": {"--plot": plot}},
    )
