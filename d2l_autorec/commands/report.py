"""What a training came to: what is printed of it, and the files that are written."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..training import Recipe
from . import cli

if TYPE_CHECKING:
    from ..curve import Epoch
    from ..evaluators import Accuracy
    from ..training import Run, Training, Yardstick

BOOK = "the book prints train loss 0.000, test RMSE 0.898"
_BOOK_SPLIT = {"split_mode": "random", "test_ratio": 0.1, "valid_ratio": None}


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
    from ..loop import closing_lines
    from ..serving import evaluate

    beside = _beside(run)
    found = run.yardstick
    parts = {"test": run.test_mat, "validation": run.valid_mat}
    scores = {
        part: evaluate(training, held_out)
        for part, held_out in parts.items()
        if held_out is not None
    }
    result = {
        **_result(run, history, scores, found),
        "devices": [str(device) for device in training.devices],
        "note": beside,
    }
    try:
        _write_files(args, run, history, found, result)
    finally:
        lines = [
            closing_lines(history, training.devices),
            f"({beside})",
            *_choice(run, history),
            *_comparison(run, scores, found),
        ]
        print("\n".join(lines))


def _beside(run: Run) -> str:
    """Say what the result compares with."""
    from ..ratings import label

    parts = filter(lambda part: part is not None, run.parts)
    size = len(run.user_ids), len(run.item_ids), sum(part.nnz for part in parts)
    name = label(run.name, size)
    by_the_book = (
        name == "ml-100k" and run.recipe == Recipe() and dict(run.split) == _BOOK_SPLIT
    )
    return BOOK if by_the_book else f"{name}: {cli.NOT_COMPARABLE}"


def _write_files(
    args: argparse.Namespace,
    run: Run,
    history: Sequence[Epoch],
    found: Yardstick | None,
    result: Mapping[str, Any],
) -> None:
    from ..curve import learning_curve
    from ..serving import save_figure, save_text

    if args.plot:
        figure = learning_curve(
            history, yardstick=found and found.models["biases"].rmse
        )
        title = f"AutoRec on {run.name}, seed {run.seed} ({result['note']})"
        figure.suptitle(title, parse_math=False)
        save_figure(figure, args.plot)
    if args.json:
        text = json.dumps(result, indent=2)
        save_text(text + "\n", args.json)


def _choice(run: Run, history: Sequence[Epoch]) -> list[str]:
    """Say which epoch was chosen, if there was anything to choose on."""
    from ..curve import best_epoch

    if run.valid_mat is None:
        return []
    best = best_epoch(history)
    test = "" if run.test_mat is None else f", test RMSE {best.test_rmse:.3f}"
    return [
        f"best on validation: epoch {best.epoch}, validation RMSE "
        f"{best.valid_rmse:.3f}{test}"
    ]


def _comparison(
    run: Run, scores: Mapping[str, Accuracy], found: Yardstick | None
) -> list[str]:
    """Say how the network compares with the simple models, and what may help it."""
    if found is None:
        return ["no ratings are held out, so nothing says how good the model is"]
    ours, biases = scores[found.part], found.models["biases"]
    models = {"this network": ours, "biases": biases}
    models["the mean"] = found.models["global_mean"]
    listed = (f"{name} {one.rmse:.3f} ({one.mae:.3f})" for name, one in models.items())
    lines = [f"{found.part} RMSE (MAE): {', '.join(listed)}"]
    if ours.rmse > biases.rmse:
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
    found: Yardstick | None,
) -> dict[str, Any]:
    from .._mxnet import mx
    from ..curve import best_epoch

    best = best_epoch(history)
    test, valid = (scores.get(part) for part in ("test", "validation"))
    models = found.models if found else {}
    return {
        "dataset": run.name,
        "num_users": len(run.user_ids),
        "num_items": len(run.item_ids),
        "num_train_ratings": run.train_mat.nnz,
        "num_test_ratings": 0 if run.test_mat is None else run.test_mat.nnz,
        **run.split,
        "seed": run.seed,
        "recipe": asdict(run.recipe),
        "train_loss": best.train_loss,
        "test_rmse": best.test_rmse,
        "test_mae": test and test.mae,
        "valid_rmse": best.valid_rmse,
        "valid_mae": valid and valid.mae,
        "best_epoch": best.epoch,
        "yardstick": {
            "part": found and found.part,
            **{name: one._asdict() for name, one in models.items()},
        },
        "history": [epoch._asdict() for epoch in history],
        "versions": {"python": platform.python_version(), "mxnet": mx.__version__},
    }
