"""What a training came to: what is printed of it, and the files that are written."""

from __future__ import annotations

import argparse
import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..training import Recipe
from . import cli

if TYPE_CHECKING:
    from ..curve import Epoch
    from ..evaluators import Accuracy
    from ..training import Baseline, Run, Training

BOOK = "the book prints train loss 0.000, test RMSE 0.898"
_BOOK_SPLIT = {"split_mode": "random", "test_ratio": 0.1}
_MOST_SETTINGS = 3  # that are listed


def report(
    args: argparse.Namespace, training: Training, run: Run, history: list[Epoch]
) -> None:
    """Write the files that were asked for; print what the result compares with.

    Parameters
    ----------
    args : argparse.Namespace
        Of the command: `plot` and `json`.
    training : Training
        With the parameters of the best epoch.
    run : Run
        What it is of.
    history : list of Epoch
        All of its epochs.
    """
    from ..curve import best_epoch
    from ..loop import closing_lines
    from ..serving import evaluate

    beside = _beside(run)
    found = run.parts.baseline
    parts = {"test": run.parts.test_mat, "validation": run.parts.valid_mat}
    scores = {
        part: evaluate(training, held_out)
        for part, held_out in parts.items()
        if held_out is not None
    }
    result = {
        **_result(run, history, scores, found),
        "devices": [str(device) for device in training.devices],
        "note": beside or None,
    }
    try:
        _write_files(args, run, history, found, result)
    finally:
        speed = f"{result['ratings_per_second']:,.0f} ratings/sec"
        lines = [
            best_epoch(history).summary(),
            f"{speed} on {training.devices}",
        ]
        if beside:
            lines = [
                closing_lines(history, training.devices),
                f"{speed} (an example is a cell of the matrix, a rating one that was "
                "observed)",
                f"({beside})",
            ]
        print(_kept(run, history), *lines, *_comparison(run, scores, found), sep="\n")


def _beside(run: Run) -> str:
    """Say how the result compares with the book; nothing if the ratings are others."""
    from ..ratings import label

    if run.parts.name != "ml-100k":
        return ""
    parts = run.parts.matrices
    size = (
        len(run.parts.user_ids),
        len(run.parts.item_ids),
        sum(part.nnz for part in parts),
    )
    name = label(run.parts.name, size)
    split = [run.parts.split.get(part) for part in _BOOK_SPLIT]
    apart = []
    if name != "ml-100k":
        apart.append(f"other ratings (here {name})")
    if split != list(_BOOK_SPLIT.values()):
        here = ", ".join(str(part) for part in split if part is not None)
        apart.append(f"another split (here {here or 'one of your own'})")
    if apart:
        return f"{cli.NOT_COMPARABLE}, which has {' and '.join(apart)}"
    other = _other_settings(run)
    if len(other) > _MOST_SETTINGS:
        return f"{BOOK}, with {len(other)} other settings"
    return f"{BOOK}, with {', '.join(other)}" if other else BOOK


def _other_settings(run: Run) -> list[str]:
    """List the book's settings that are others here."""
    if type(run.recipe) is not Recipe:
        return ["one network (here several)"]
    ours, books = asdict(run.recipe), asdict(Recipe())
    other = [f"{n} {books[n]} (here {ours[n]})" for n in books if ours[n] != books[n]]
    if share := run.parts.split.get("valid_ratio"):
        other.append(f"no validation part (here {share} of the training ratings)")
    return other


def _kept(run: Run, history: Sequence[Epoch]) -> str:
    """Say which epoch is kept, and why the training ended."""
    from ..curve import best_epoch

    best, last = best_epoch(history), history[-1].epoch
    which = "the last one"
    if best.valid_rmse is not None:
        which = f"the best on validation (RMSE {best.valid_rmse:.3f})"
    why = ""
    if _ended(run, history) == "patience":
        why = f", as {run.patience} brought no new best (--patience {run.patience})"
    return (
        f"kept: epoch {best.epoch}, {which}; ended: after epoch {last} of "
        f"{run.recipe.num_epochs}{why}"
    )


def _ended(run: Run, history: Sequence[Epoch]) -> str:
    return "epochs" if history[-1].epoch == run.recipe.num_epochs else "patience"


def _write_files(
    args: argparse.Namespace,
    run: Run,
    history: Sequence[Epoch],
    found: Baseline | None,
    result: Mapping[str, Any],
) -> None:
    from ..curve import learning_curve
    from ..serving import save_figure, save_text

    if args.json:
        text = json.dumps(result, indent=2, allow_nan=False)
        save_text(text + "\n", args.json)
    if args.plot:
        figure = learning_curve(history, baseline=found and found.models["biases"].rmse)
        title = f"AutoRec on {run.parts.name}, seed {run.seed}"
        if result["note"]:
            title += "\n" + textwrap.fill(f"({result['note']})", 90)
        figure.suptitle(title, parse_math=False, size="medium")
        save_figure(figure, args.plot)


def _comparison(
    run: Run, scores: Mapping[str, Accuracy], found: Baseline | None
) -> list[str]:
    """Say how the network compares with the simple models, and what may help it."""
    from ..ratings import SYNTHETIC

    if found is None:
        return ["no ratings are held out, so nothing says how good the model is"]
    ours, biases = scores[found.part], found.models["biases"]
    models = {"this network": ours, "biases": biases}
    models["the mean"] = found.models["global_mean"]
    listed = (f"{name} {one.rmse:.3f} ({one.mae:.3f})" for name, one in models.items())
    lines = [f"{found.part} RMSE (MAE): {', '.join(listed)}"]
    # Of generated ratings, which model is the better one says nothing.
    if ours.rmse > biases.rmse and run.parts.name != SYNTHETIC:
        hints = ["more epochs (--num-epochs)"]
        if isinstance(run.recipe, Recipe):
            hints.insert(0, "--preset best")
            if not run.recipe.residual:
                hints.insert(0, "--residual")
        lines.append(
            f"this network is worse than biases by {ours.rmse - biases.rmse:.3f}; what "
            f"may help: {', '.join(hints)}"
        )
    return lines


def _result(
    run: Run,
    history: Sequence[Epoch],
    scores: Mapping[str, Accuracy],
    found: Baseline | None,
) -> dict[str, Any]:
    from ..curve import best_epoch, examples_per_second
    from ..serving import versions

    best = best_epoch(history)
    speed = examples_per_second(history)
    test, valid = (scores.get(part) for part in ("test", "validation"))
    models = found.models if found else {}
    return {
        "dataset": run.parts.name,
        "num_users": len(run.parts.user_ids),
        "num_items": len(run.parts.item_ids),
        "num_train_ratings": run.parts.train_mat.nnz,
        "num_test_ratings": 0 if run.parts.test_mat is None else run.parts.test_mat.nnz,
        **run.parts.split,
        "seed": run.seed,
        "recipe": asdict(run.recipe),
        "train_loss": best.train_loss,
        "test_rmse": best.test_rmse,
        "test_mae": test and test.mae,
        "valid_rmse": best.valid_rmse,
        "valid_mae": valid and valid.mae,
        "best_epoch": best.epoch,
        "ended": _ended(run, history),
        "examples_per_second": speed,
        "ratings_per_second": speed
        * run.parts.train_mat.nnz
        / math.prod(run.parts.train_mat.shape),
        "baseline": {
            "part": found and found.part,
            **{name: one._asdict() for name, one in models.items()},
        },
        "history": [epoch._asdict() for epoch in history],
        "versions": versions(),
    }
