"""Train AutoRec: ``python -m d2l_autorec.train``."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from . import cli
from .distributed import check_environment, join
from .settings import ACTIVATIONS, SETTINGS

if TYPE_CHECKING:
    from ._mxnet import mx
    from .checkpoint import Checkpoint, Run
    from .distributed import Team
    from .loop import Epoch
    from .ratings import Ratings
    from .recipe import Recipe

BOOK = "the book prints train loss 0.000, test RMSE 0.898"
_BOOK_SPLIT = {"split_mode": "random", "test_ratio": 0.1, "valid_ratio": None}
# What may stand beside --resume; the rest is part of the model in the folder.
_RESUMABLE = {
    *("resume", "num_epochs", "patience", "devices", "kvstore"),
    *("plot", "json", "quiet"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        By default the process's own arguments.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    args.num_hidden = _layers(args.num_hidden)
    given = _given(parser, args, argv)
    _check_combination(parser, args, given)
    if args.kvstore:
        check_environment()

    # Only now, so that --help and a bad flag need not wait for MXNet.
    from .checkpoint import lock, make_folder
    from .loop import parse_devices

    recipe = _recipe(parser, args, given)
    devices = parse_devices(args.devices)
    # Before anything else that can fail: workers notice the end of one that has joined.
    team = join(args.kvstore) if args.kvstore else None
    reports = team is None or team.rank == 0
    args.quiet = args.quiet or not reports
    if args.save and reports:
        make_folder(args.save, args.overwrite)
    folder = (args.save or args.resume) if reports else None
    with lock(folder) if folder else nullcontext():
        run, history = _train(args, given, recipe, devices, team)
    if reports:
        _report(args, run, history, devices)


def _train(
    args: argparse.Namespace,
    given: set[str],
    recipe: Recipe,
    devices: list[mx.Context],
    team: Team | None,
) -> tuple[Run, list[Epoch]]:
    """Train anew or go on; return what from, and all epochs."""
    from tqdm import tqdm

    from .checkpoint import Checkpoint
    from .loop import stop_early
    from .plots import watch

    reports = team is None or team.rank == 0
    checkpoint, past = None, []
    if args.resume:
        checkpoint = _reopen(args, given)
        run, past = checkpoint.run, list(checkpoint.history)
    else:
        run = _new_run(args, recipe)
    if args.save and reports:
        checkpoint = Checkpoint(args.save, run, args.overwrite)
    if not args.quiet:
        print(_parts(run))
        if past:
            print(f"going on after epoch {len(past)} of {run.recipe.num_epochs}")

    training = run.train(devices, len(past), team)
    if not args.quiet and run.recipe.pretrain_epochs and not past:
        for _ in tqdm(
            training.pretraining,
            *("pretraining with one hidden layer", run.recipe.pretrain_epochs),
            unit="epoch",
        ):
            pass
    epochs = training.epochs
    if checkpoint:
        if past:
            checkpoint.restore(training, devices)
        if reports:
            epochs = checkpoint.saving(training, locked=True)
        epochs = chain(past, epochs)
    if run.patience:
        epochs = stop_early(epochs, run.patience)
    try:
        history = list(epochs if args.quiet else watch(epochs, run.recipe.num_epochs))
    except KeyboardInterrupt:
        if checkpoint is None or not checkpoint.history:
            raise
        raise KeyboardInterrupt(
            f"interrupted; {len(checkpoint.history)} epochs are saved, go on with "
            f"--resume {checkpoint.directory}"
        ) from None
    return run, history


def _report(
    args: argparse.Namespace,
    run: Run,
    history: list[Epoch],
    devices: list[mx.Context],
) -> None:
    """Print the result, and write the files that were asked for."""
    from ._mxnet import mx
    from .checkpoint import best_epoch
    from .files import replacing
    from .loop import closing_lines
    from .plots import learning_curve, save_figure
    from .recipe import Recipe

    by_the_book = (
        run.name == "ml-100k"
        and run.recipe == Recipe()
        and dict(run.split) == _BOOK_SPLIT
    )
    beside = BOOK if by_the_book else f"{run.name}: {cli.NOT_COMPARABLE}"
    print(closing_lines(history, devices))
    print(f"({beside})")
    best = best_epoch(history)
    if run.valid_mat is not None:
        print(
            f"best on validation: epoch {best.epoch}, validation RMSE "
            f"{best.valid_rmse:.3f}, test RMSE {best.test_rmse:.3f}"
        )
    if args.plot:
        figure = learning_curve(history)
        figure.suptitle(f"AutoRec on {run.name}, seed {run.seed} ({beside})")
        with replacing(args.plot) as file:
            save_figure(figure, file)
    if args.json:
        report = {
            "dataset": run.name,
            "num_users": len(run.user_ids),
            "num_items": len(run.item_ids),
            "num_train_ratings": run.train_mat.nnz,
            "num_test_ratings": run.test_mat.nnz,
            **run.split,
            "seed": run.seed,
            "recipe": asdict(run.recipe),
            "devices": [str(device) for device in devices],
            "train_loss": history[-1].train_loss,
            "test_rmse": history[-1].test_rmse,
            "best_epoch": best.epoch,
            "note": beside,
            "history": [epoch._asdict() for epoch in history],
            "versions": {"python": platform.python_version(), "mxnet": mx.__version__},
        }
        with replacing(args.json) as file:
            file.write_text(json.dumps(report, indent=2) + "\n")


def _given(
    parser: cli.Parser, args: argparse.Namespace, argv: Sequence[str] | None
) -> set[str]:
    """Name the flags that were written, be it with their default values."""
    unset = object()
    probe = argparse.Namespace(**dict.fromkeys(vars(args), unset))
    parser.parse_args(argv, probe)
    return {name for name, value in vars(probe).items() if value is not unset}


def _recipe(parser: cli.Parser, args: argparse.Namespace, given: set[str]) -> Recipe:
    """Change the preset by the flags that were written."""
    from .recipe import PRESETS

    preset = PRESETS[args.preset]
    settings = {n: getattr(args, n) for n in asdict(preset) if n in given}
    loss = settings.get("loss", preset.loss)
    if "wd" not in given and (loss == "paper") != (preset.loss == "paper"):
        whose = "the paper's lambda" if preset.loss == "paper" else "the optimizer's"
        parser.error(
            f"the {loss} loss needs a weight decay of its own (--wd): that of --preset "
            f"{args.preset} is {whose}"
        )
    try:
        return replace(preset, **settings)
    except ValueError as error:
        parser.error(str(error))


def _check_combination(
    parser: cli.Parser, args: argparse.Namespace, given: set[str]
) -> None:
    def flags(names: set[str]) -> str:
        return ", ".join(sorted("--" + name.replace("_", "-") for name in names))

    if args.resume and given - _RESUMABLE:
        parser.error(
            f"--resume takes these from the model folder: {flags(given - _RESUMABLE)}"
        )
    if args.ratings and (beside := given & {"dataset", "data_dir"}):
        parser.error(f"--ratings and {flags(beside)} exclude each other")
    layout = given & {"columns", "encoding", "duplicates", "rating_offset"}
    if layout and not args.ratings:
        parser.error(f"only for a file that --ratings names: {flags(layout)}")
    if args.overwrite and not args.save:
        parser.error("--overwrite is for --save")
    if args.patience and not (args.valid_ratio or args.resume):
        parser.error("--patience needs a validation part (--valid-ratio 0.1)")


def _new_run(args: argparse.Namespace, recipe: Recipe) -> Run:
    """Load and split the ratings that the flags ask for."""
    from .checkpoint import Run
    from .data import hold_out, split_data_ml100k
    from .loop import seed_everything

    ratings = _load(args)
    if not args.quiet:
        print(ratings.summary())
    seed_everything(args.seed)
    train_data, test_data = split_data_ml100k(
        ratings.data,
        ratings.num_users,
        ratings.num_items,
        args.split_mode,
        args.test_ratio,
    )
    valid_data = None
    if args.valid_ratio:
        train_data, valid_data = hold_out(train_data, args.valid_ratio, args.seed)
    return Run.of(
        ratings,
        train_data,
        test_data,
        valid_data,
        recipe=recipe,
        seed=args.seed,
        split={
            n: getattr(args, n) for n in ("split_mode", "test_ratio", "valid_ratio")
        },
        patience=args.patience,
    )


def _reopen(args: argparse.Namespace, given: set[str]) -> Checkpoint:
    """Open a model folder, for more epochs or another patience if flags ask for it."""
    from .checkpoint import Checkpoint
    from .errors import ModelError

    checkpoint = Checkpoint.open(args.resume)
    run, trained = checkpoint.run, len(checkpoint.history)
    if "num_epochs" in given:
        if args.num_epochs < trained:
            raise ModelError(f"{args.resume}: is already trained for {trained} epochs")
        planned = run.recipe.num_epochs
        if run.recipe.schedule == "cosine" and args.num_epochs != planned:
            raise ModelError(
                f"{args.resume}: its cosine schedule ends with epoch {planned}; "
                f"for {args.num_epochs} epochs train anew"
            )
        run = replace(run, recipe=replace(run.recipe, num_epochs=args.num_epochs))
    if args.patience:
        if run.valid_mat is None:
            raise ModelError(f"{args.resume}: has no validation part for --patience")
        run = replace(run, patience=args.patience)
    checkpoint.run = run
    return checkpoint


def _layers(num_hidden: list[int]) -> int | tuple[int, ...]:
    return num_hidden[0] if len(num_hidden) == 1 else tuple(num_hidden)


def _parts(run: Run) -> str:
    line = (
        f"{run.split['split_mode']} split, seed {run.seed}: {run.train_mat.nnz:,} "
        f"ratings to train on, {run.test_mat.nnz:,} to test on"
    )
    if run.valid_mat is not None:
        line += f", {run.valid_mat.nnz:,} to validate on"
    return line


def _load(args: argparse.Namespace) -> Ratings:
    from .checkpoint import MANIFEST
    from .ratings import read_ratings

    if not args.ratings:
        model = args.save and args.save / MANIFEST
        return cli.load_ratings(
            args.dataset, args.data_dir, args.plot, args.json, model
        )
    return read_ratings(
        args.ratings,
        columns=args.columns,
        encoding=args.encoding,
        duplicates=args.duplicates,
        rating_offset=args.rating_offset,
    )


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m d2l_autorec.train",
        description="Train AutoRec on rating data and score it on held-out ratings. "
        "Without flags: the book's recipe on MovieLens 100K.",
    )
    cli.add_data_flags(parser)
    cli.add_ratings_flags(parser)
    split = parser.add_argument_group("split")
    split.add_argument(
        "--split-mode",
        choices=("random", "seq-aware"),
        default="random",
        help="which ratings are held out: a random share, or each user's newest one",
    )
    split.add_argument(
        "--test-ratio",
        type=cli.ratio,
        default=0.1,
        metavar="R",
        help="share of the ratings that the random split holds out",
    )
    split.add_argument(
        "--valid-ratio",
        type=cli.ratio,
        metavar="R",
        help="share of the training ratings that is set aside to choose the best epoch",
    )
    split.add_argument(
        "--seed",
        type=cli.seed,
        default=0,
        metavar="N",
        help="of the split, the initial weights, the order and the dropout",
    )
    recipe = parser.add_argument_group(
        "recipe", "A flag given beside --preset changes that setting of it."
    )
    recipe.add_argument(
        "--preset",
        choices=("book", "paper", "best"),
        default="book",
        help="all of the settings below at once: the book's, which are the defaults; "
        "the paper's model and objective; or the most accurate one we know, the mean "
        "of five deep networks",
    )
    recipe.add_argument(
        "--kind",
        choices=SETTINGS["kind"].choices,
        default="item",
        help="whether a row is what all users gave an item, or what a user gave all "
        "items",
    )
    recipe.add_argument(
        "--num-hidden",
        "-k",
        type=cli.positive_int,
        nargs="+",
        default=[500],
        metavar="N",
        help="units of the hidden layer, or of several: 500 250 500",
    )
    for name, default, which in (
        ("--activation", "sigmoid", "hidden layers"),
        ("--output", "identity", "output; a bounded one is stretched over the ratings"),
    ):
        recipe.add_argument(
            name,
            choices=ACTIVATIONS,
            default=default,
            help=f"activation of the {which}",
        )
    recipe.add_argument(
        "--dropout",
        type=cli.dropout,
        default=0.05,
        metavar="P",
        help="share of the hidden units that training drops",
    )
    recipe.add_argument(
        "--input-dropout",
        type=cli.dropout,
        default=0.0,
        metavar="P",
        help="share of the inputs that training drops (a denoising autoencoder)",
    )
    recipe.add_argument(
        "--members",
        type=cli.positive_int,
        default=1,
        metavar="N",
        help="networks to train side by side and to average",
    )
    recipe.add_argument(
        "--loss",
        choices=SETTINGS["loss"].choices,
        default="book",
        help="squared error over all cells, unobserved ones counting 0; over the "
        "observed ones, with --wd as the paper's lambda; or its root",
    )
    recipe.add_argument(
        "--optimizer",
        default="adam",
        metavar="NAME",
        help="an MXNet optimizer, or rprop, which needs --batch-size all",
    )
    recipe.add_argument(
        "--lr",
        "-l",
        type=cli.positive_float,
        default=0.002,
        metavar="X",
        help="learning rate",
    )
    recipe.add_argument(
        "--schedule",
        choices=SETTINGS["schedule"].choices,
        default="constant",
        help="whether the learning rate stays, or falls to 0 at the last epoch",
    )
    recipe.add_argument(
        "--wd",
        "-w",
        type=cli.non_negative_float,
        default=1e-5,
        metavar="X",
        help="weight decay; where --loss is paper, lambda, which --preset best takes "
        "from the size of the data",
    )
    recipe.add_argument(
        "--num-epochs",
        "-e",
        type=cli.positive_int,
        default=25,
        metavar="N",
        help="passes over the training ratings, those before a --resume included",
    )
    recipe.add_argument(
        "--pretrain-epochs",
        type=cli.non_negative_int,
        default=0,
        metavar="N",
        help="with several hidden layers, passes with just one that come first, for "
        "weights to start from",
    )
    recipe.add_argument(
        "--patience",
        type=cli.positive_int,
        metavar="N",
        help="stop after N epochs without a new best on the validation part",
    )
    recipe.add_argument(
        "--batch-size",
        "-b",
        type=cli.batch_size,
        default=256,
        metavar="N",
        help="rows a mini-batch, or 'all'",
    )
    recipe.add_argument(
        "--clip",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="hold predictions to the range of the training ratings",
    )
    recipe.add_argument(
        "--cold",
        type=cli.cold,
        metavar="X",
        help="what to predict for a user or item without a training rating: a number, "
        "'mean', or 'net' for what the network makes of them (default: net)",
    )
    machines = parser.add_argument_group("machines")
    machines.add_argument(
        "--kvstore",
        choices=("dist_sync",),
        help="share every batch with workers on other machines; the same command for "
        "each process, told apart by DMLC_* variables (docs/distributed.md)",
    )
    saving = parser.add_argument_group("saving")
    saving.add_argument(
        "--save",
        type=Path,
        metavar="DIR",
        help="keep the model there, with the last epoch and the best on validation",
    )
    saving.add_argument(
        "--overwrite",
        action="store_true",
        help="let --save replace a model that is there",
    )
    saving.add_argument(
        "--resume",
        type=Path,
        metavar="DIR",
        help="go on with a training that was saved there, and save there",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--devices",
        type=cli.device_names,
        metavar="LIST",
        help="cpu, gpu (all of them), or a list like cpu:0,cpu:1 (default: every GPU, "
        "or the CPU where there is none)",
    )
    output.add_argument(
        "--plot",
        type=cli.plot_file,
        metavar="FILE",
        help="write the learning curve (.png, .svg or .pdf)",
    )
    output.add_argument(
        "--json",
        type=cli.output_file,
        metavar="FILE",
        help="write settings, history and result",
    )
    output.add_argument(
        "--quiet", action="store_true", help="print only the result, no progress"
    )
    return parser


if __name__ == "__main__":
    cli.run(main, os._exit)
