"""Train AutoRec: ``python -m d2l_autorec.train``."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import asdict, replace
from itertools import chain
from typing import TYPE_CHECKING

from ..training import PRESETS, Recipe
from . import cli

if TYPE_CHECKING:
    from .._mxnet import mx
    from ..cluster import Team
    from ..curve import Epoch
    from ..ratings import Ratings
    from ..serving import Checkpoint
    from ..training import Run

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
    # Only now, so that --help and a bad flag need not wait for MXNet.
    from ..cluster import check_environment, join
    from ..serving import lock, make_folder

    if args.kvstore:
        check_environment()
    recipe = _recipe(parser, args, given)
    devices = cli.parse_devices(args.devices)
    # Before anything else that can fail: workers notice the end of one that has joined.
    team = join(args.kvstore) if args.kvstore else None
    with ExitStack() as stack:
        if team and team.rank:
            args.save = args.plot = args.json = None
            args.quiet = True
            stack.enter_context(redirect_stdout(None))
        elif args.save or args.resume:
            if args.save:
                make_folder(args.save, args.overwrite)
            stack.enter_context(lock(args.save or args.resume))
        run, history = _train(args, given, recipe, devices, team)
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

    from ..curve import watch
    from ..loop import train_recsys_rating
    from ..serving import Checkpoint
    from ..training import stop_early

    checkpoint, past = None, []
    if args.resume:
        checkpoint = _reopen(args, given)
        run, past = checkpoint.run, list(checkpoint.history)
    else:
        run = _new_run(args, recipe)
    if args.save:
        checkpoint = Checkpoint(args.save, run, args.overwrite)
    if not args.quiet:
        print(_parts(run))
        if past:
            print(f"going on after epoch {len(past)} of {run.recipe.num_epochs}")

    training = run.train(devices, len(past), team)
    if checkpoint and past:
        checkpoint.restore(training, devices)
    if not args.quiet and run.recipe.pretrain_epochs and not past:
        for _ in tqdm(
            training.pretraining,
            *("pretraining with one hidden layer", run.recipe.pretrain_epochs),
            unit="epoch",
        ):
            pass
    for _ in training.pretraining:  # what is left
        pass

    def hook(epochs: Iterable[Epoch], num_epochs: int) -> Iterable[Epoch]:
        epochs = training.validated(epochs)
        if checkpoint and not (team and team.rank):
            epochs = checkpoint.saving(training, epochs, locked=True)
        epochs = chain(past, epochs)
        if run.patience:
            epochs = stop_early(epochs, run.patience)
        return epochs if args.quiet else watch(epochs, num_epochs)

    evaluator, test_iter = training.evaluator()
    try:
        with redirect_stdout(None):  # what it prints comes after the files
            history = train_recsys_rating(
                training.net,
                training.batches,
                test_iter,
                training.loss,
                training.trainer,
                run.recipe.num_epochs,
                devices,
                evaluator,
                inter_mat=run.test_mat,
                step=training.step,
                hook=hook,
                trained=len(past),
            )
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
    """Write the files that were asked for; print the result all the same."""
    from ..loop import closing_lines
    from ..training import best_epoch

    beside = _beside(run)
    lines = [closing_lines(history, devices), f"({beside})"]
    best = best_epoch(history)
    if run.valid_mat is not None:
        lines.append(
            f"best on validation: epoch {best.epoch}, validation RMSE "
            f"{best.valid_rmse:.3f}, test RMSE {best.test_rmse:.3f}"
        )
    try:
        _write_files(args, run, history, devices, beside)
    finally:
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
    history: list[Epoch],
    devices: list[mx.Context],
    beside: str,
) -> None:
    from .._mxnet import mx
    from ..curve import learning_curve
    from ..serving import save_figure, save_text
    from ..training import best_epoch

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
            "best_epoch": best_epoch(history).epoch,
            "note": beside,
            "history": [epoch._asdict() for epoch in history],
            "versions": {"python": platform.python_version(), "mxnet": mx.__version__},
        }
        save_text(json.dumps(report, indent=2) + "\n", args.json)
    if args.plot:
        figure = learning_curve(history)
        title = f"AutoRec on {run.name}, seed {run.seed} ({beside})"
        figure.suptitle(title, parse_math=False)
        save_figure(figure, args.plot)


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
    from ..data import split_data_ml100k
    from ..loop import seed_everything
    from ..training import Run, hold_out

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
    from ..errors import ModelError
    from ..serving import Checkpoint

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


def _layers(num_hidden: int | list[int]) -> int | tuple[int, ...]:
    if isinstance(num_hidden, int):  # the default
        return num_hidden
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
    from ..ratings import read_ratings
    from ..serving import MANIFEST

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
    cli.add_recipe_flags(recipe)
    recipe.add_argument(
        "--patience",
        type=cli.positive_int,
        metavar="N",
        help="stop after N epochs without a new best on the validation part",
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
        type=cli.output_folder,
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
        type=cli.output_folder,
        metavar="DIR",
        help="go on with a training that was saved there, and save there",
    )
    output = cli.add_output_flags(
        parser,
        plot="write the learning curve",
        json="write settings, history and result",
    )
    output.add_argument(
        "--devices",
        type=cli.device_names,
        metavar="LIST",
        help="cpu, gpu (all of them), or a list like cpu:0,cpu:1 (default: every GPU, "
        "or the CPU where there is none)",
    )
    return parser
