"""What a training came to: what is printed of it, and the files that are written."""

from __future__ import annotations

import argparse
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..cluster import launched
from ..training import Recipe
from .parts import NOT_COMPARABLE
from .results import json_writer, publish

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..curve import Epoch
    from ..evaluators import Accuracy
    from ..training import Run, Training

BOOK = "the book prints train loss 0.000, test RMSE 0.898"
_BOOK_SPLIT = {"split_mode": "random", "test_ratio": 0.1}


def report(
    args: argparse.Namespace, training: Training, run: Run, history: list[Epoch]
) -> None:
    """Write the files that are asked for; print what the result compares with.

    The training has the parameters of the best epoch, and the history is all epochs.
    """
    from ..curve import best_epoch
    from ..loop import closing_lines
    from ..serving import evaluate, list_measures, save_figure

    note = beside_the_book(run)
    held_out = {"test": run.parts.test_mat, "validation": run.parts.valid_mat}
    scores = {
        part: evaluate(training, matrix)
        for part, matrix in held_out.items()
        if matrix is not None
    }
    # Of several workers, each has a share of the users.
    lists = {} if launched() else list_measures(training.net, run)
    result = {
        **_result(run, history, scores),
        "lists": lists or None,
        "devices": [str(device) for device in training.devices],
        "note": note or None,
    }
    speed = f"{result['ratings_per_second']:,.0f} ratings/sec"
    if note:
        closing = [
            closing_lines(history, training.devices),
            f"{speed} (an example is a cell of the matrix, a rating one that was "
            "observed)",
            f"({note})",
        ]
    else:
        closing = [best_epoch(history).summary(), f"{speed} on {training.devices}"]
    compared = [*_comparison(run, scores), *_lists(run, lists)]
    publish(
        "\n".join([_kept(run, history), *closing, *compared]),
        (args.json, json_writer(result)),
        (args.plot, lambda file: save_figure(_curve(run, history, note), file)),
    )


def beside_the_book(run: Run) -> str:
    """Say how the result compares with the book; nothing if the ratings are others."""
    from ..ratings import label

    parts = run.parts
    if parts.name != "ml-100k":
        return ""
    size = len(parts.user_ids), len(parts.item_ids), sum(m.nnz for m in parts.matrices)
    name = label(parts.name, size)
    split = [parts.split.get(part) for part in _BOOK_SPLIT]
    apart = []
    if name != "ml-100k":
        apart.append(f"other ratings (here {name})")
    if split != list(_BOOK_SPLIT.values()):
        here = ", ".join(str(part) for part in split if part is not None)
        apart.append(f"another split (here {here or 'one of your own'})")
    if apart:
        return f"{NOT_COMPARABLE}, which has {' and '.join(apart)}"
    if run.recipe != Recipe() or parts.split.get("valid_ratio"):
        return f"{BOOK}, with other settings"
    return BOOK


def _kept(run: Run, history: Sequence[Epoch]) -> str:
    """Say which epoch is kept, and why the training ended."""
    from ..curve import best_epoch

    best, last = best_epoch(history), history[-1].epoch
    which = "the last one"
    if best.valid_rmse is not None:
        which = f"the best on validation (RMSE {best.valid_rmse:.3f})"
    why = ""
    if last < run.recipe.num_epochs:
        why = f", as {run.patience} brought no new best (--patience {run.patience})"
    return (
        f"kept: epoch {best.epoch}, {which}; ended: after epoch {last} of "
        f"{run.recipe.num_epochs}{why}"
    )


def _curve(run: Run, history: Sequence[Epoch], note: str) -> Figure:
    """Draw the learning curve, with a title."""
    from ..curve import learning_curve

    simple = run.parts.baseline
    figure = learning_curve(history, baseline=simple and simple.models["biases"].rmse)
    title = f"AutoRec on {run.parts.name}, seed {run.seed}"
    if note:
        title += "\n" + textwrap.fill(f"({note})", 90)
    figure.suptitle(title, parse_math=False, size="medium")
    return figure


def _comparison(run: Run, scores: Mapping[str, Accuracy]) -> list[str]:
    """Say how the network compares with the simple models, and what may help it."""
    from ..ratings import SYNTHETIC

    simple = run.parts.baseline
    if simple is None:
        return ["no ratings are held out, so nothing says how good the model is"]
    ours, biases = scores[simple.part], simple.models["biases"]
    models = {"this network": ours, "biases": biases}
    models["the mean"] = simple.models["global_mean"]
    listed = (f"{name} {one.rmse:.3f} ({one.mae:.3f})" for name, one in models.items())
    lines = [f"{simple.part} RMSE (MAE): {', '.join(listed)}"]
    # Of generated ratings, which model is the better one says nothing.
    if ours.rmse > biases.rmse and run.parts.name != SYNTHETIC:
        plain = isinstance(run.recipe, Recipe) and not run.recipe.residual
        hints = "--residual, --preset best, " if plain else ""
        lines.append(
            f"this network is worse than biases by {ours.rmse - biases.rmse:.3f}; what "
            f"may help: {hints}more epochs (--num-epochs)"
        )
    return lines


def _lists(run: Run, measures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Say how good the network's lists are, and what makes better ones."""
    from ..ratings import SYNTHETIC

    if not measures:
        return []
    listed = (
        f"{name} {found['recall@10']:.3f} ({found['ndcg@10']:.3f})"
        for name, found in measures.items()
    )
    lines = [f"recall@10 (nDCG@10) of its lists: {', '.join(listed)}"]
    ours, popular = measures.values()
    if ours["ndcg@10"] < popular["ndcg@10"] and run.parts.name != SYNTHETIC:
        lines.append(
            "the most popular items are better lists; for lists of what users choose "
            "next: --feedback implicit --min-rating 4"
        )
    return lines


def _result(
    run: Run, history: Sequence[Epoch], scores: Mapping[str, Accuracy]
) -> dict[str, Any]:
    """Collect what --json writes."""
    from ..curve import best_epoch, examples_per_second
    from ..serving import versions

    parts, best = run.parts, best_epoch(history)
    speed = examples_per_second(history)
    test, valid = scores.get("test"), scores.get("validation")
    simple = parts.baseline
    models = simple.models if simple else {}
    return {
        "dataset": parts.name,
        "num_users": len(parts.user_ids),
        "num_items": len(parts.item_ids),
        "num_train_ratings": parts.train_mat.nnz,
        "num_test_ratings": 0 if parts.test_mat is None else parts.test_mat.nnz,
        **parts.split,
        "seed": run.seed,
        "recipe": asdict(run.recipe),
        "train_loss": best.train_loss,
        "test_rmse": best.test_rmse,
        "test_mae": test and test.mae,
        "valid_rmse": best.valid_rmse,
        "valid_mae": valid and valid.mae,
        "best_epoch": best.epoch,
        "ended": "epochs" if len(history) == run.recipe.num_epochs else "patience",
        "examples_per_second": speed,
        "ratings_per_second": speed
        * parts.train_mat.nnz
        / math.prod(parts.train_mat.shape),
        "baseline": {
            "part": simple and simple.part,
            **{name: one._asdict() for name, one in models.items()},
        },
        "history": [epoch._asdict() for epoch in history],
        "versions": versions(),
    }
