"""The report of a comparison: the table, and what its numbers stand for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .checks import LAYOUT
from .results import as_flags

if TYPE_CHECKING:
    from .compare import Comparison


def report(comparison: Comparison) -> str:
    """Lay out the table, and say what its numbers stand for."""
    from ..study import results_table

    notes = [*_measures(comparison), *_choices(comparison), *_cold_notes(comparison)]
    pieces = [
        f"{comparison.where}:",
        results_table(comparison.scores, comparison.titles, comparison.rival),
        "\n".join(notes),
    ]
    if found := comparison.protocol:
        pieces.append(
            "Not comparable with the table: the book trains its MF on the seq-aware "
            "split (each user's newest rating is held out) and prints an average of "
            "running averages, about 1.05. That protocol gives "
            f"{found['averaged']:.3f} here (seed {comparison.seeds[0]}); the pooled "
            f"RMSE of the same training is {found['pooled']:.3f}."
        )
    return "\n\n".join([*pieces, _provenance(comparison)])


def against_note(measure: str, rival: str, num_runs: int, better: str) -> str:
    """Say what the difference from a rival and the runs won are."""
    interval = ""
    if num_runs > 1:
        interval = (
            ", with its 95 % confidence interval by Student's t, which is too narrow "
            "as the parts of the runs overlap"
        )
    return (
        f"Against {rival}: the mean difference in {measure} over the runs{interval}; "
        f"won are the runs in which a model's {measure} is {better} that of {rival}."
    )


def _measures(comparison: Comparison) -> Iterator[str]:
    """Say what the columns of the table are."""
    titles = comparison.titles
    clipped = [titles[name] for name, model in comparison.models.items() if model.clips]
    yield (
        "RMSE and MAE are pooled over all held-out ratings of a run, mean ± "
        "standard deviation over the runs. No prediction is clipped to the rating "
        f"scale{', but for those of ' + ' and '.join(clipped) if clipped else ''}. "
        "Seconds are of training alone."
    )
    if rival := comparison.rival:
        yield against_note("RMSE", titles[rival], len(comparison.runs), "below")
    if comparison.args.ranking:
        yield (
            "NDCG, recall and precision rank the held-out items of each user "
            "(protocol TestRatings of Bellogín et al., 2011); relevant are those "
            "rated at least the mean of the training ratings, and counted are "
            "users who have some."
        )


def _choices(comparison: Comparison) -> Iterator[str]:
    """Say what a validation part has chosen."""
    scores = comparison.scores
    if "autorec-early" in scores:
        epochs = ", ".join(str(len(s.curve)) for s in scores["autorec-early"])
        yield (
            f"Stopped early: {epochs} epochs, chosen on a tenth of the training "
            "ratings and then trained again on all of them."
        )
    for name, found in scores.items():
        if chosen := " | ".join(s.chosen for s in found if s.chosen):
            yield (
                f"{comparison.titles[name]}: {chosen}; chosen on a tenth of the "
                "training ratings, then trained again on all of them."
            )


def _cold_notes(comparison: Comparison) -> Iterator[str]:
    """Say how many users and items are cold, and what the models predict for them."""
    runs = zip(comparison.runs, comparison.cold)
    affected = {name: cold for name, cold in runs if cold["ratings"]}
    if not affected:
        yield "No user or item of a test part is cold."
        return
    yield (
        "Cold in the test part (no training rating; `--json` names them), and "
        "scored all the same:"
    )
    for name, cold in affected.items():
        counted = (f"{len(cold[n])} {n}" for n in ("users", "items") if cold[n])
        yield f"- {name}: {', '.join(counted)}; {cold['ratings']} ratings"
    yield "What the models predict there, from the lowest to the highest:"
    for name, found in comparison.scores.items():
        said = []
        for noun in ("users", "items"):
            if ranges := [score.cold[noun] for score in found if noun in score.cold]:
                ends = min(map(min, ranges)), max(map(max, ranges))
                shown = dict.fromkeys(f"{round(end, 2) + 0.0:.2f}" for end in ends)
                said.append(f"{' to '.join(shown)} for {noun}")
        yield f"- {comparison.titles[name]}: {', '.join(said)}"


def _provenance(comparison: Comparison) -> str:
    """Name the command that prints the report again, and the machine."""
    from ..study import provenance, span

    args = comparison.args
    source = "ratings" if args.ratings else "dataset"
    split = "test_ratings" if args.test_ratings else "splits"
    settings = {source: args.ratings or comparison.ratings.name}
    settings |= {name: getattr(args, name) for name in LAYOUT if name in args.given}
    settings |= {split: getattr(args, split), "seeds": span(comparison.seeds)}
    more = args.given & {"ranking", "models", "against"}
    settings |= {name: getattr(args, name) for name in sorted(more, reverse=True)}
    return f"{provenance('compare', as_flags(settings))}."
