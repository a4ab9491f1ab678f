"""Train AutoRec: ``python -m d2l_autorec.train``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import replace
from itertools import chain, islice
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..cluster import check_recipe, launched
from ..training import PRESETS, SETTINGS, VALID_RATIO, Blend, Recipe
from . import cli, parts, workers
from .launch import launch
from .report import report

if TYPE_CHECKING:
    from .._mxnet import mx
    from ..cluster import Team
    from ..curve import Epoch
    from ..serving import Checkpoint
    from ..training import Run, Training

# What may stand beside --resume; the rest is part of the model in the folder.
_RESUMABLE = {
    *("resume", "num_epochs", "patience", "devices", "workers"),
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
    several = launched()
    if several:
        workers.enter()
    cli.show_notes(args.quiet)
    args.num_hidden = _layers(args.num_hidden)
    given = _given(parser, args, argv)
    if isinstance(PRESETS[args.preset], Blend) and not args.resume:
        args.refit, args.valid_ratio = True, args.valid_ratio or VALID_RATIO
    _check_combination(parser, args, given)
    recipe = _recipe(parser, args, given)
    if args.workers or several:
        check_recipe(recipe)
    if args.workers and not several:
        launch(args.workers, sys.argv[1:] if argv is None else argv)
    # Only now, so that --help and a bad flag need not wait for MXNet.
    from ..serving import Checkpoint, lock, make_folder

    devices = cli.parse_devices(args.devices)
    team = workers.meet(args, devices) if several else None
    first = not (team and team.rank)
    locked = None
    with ExitStack() as stack:
        if not first:
            args.plot = args.json = None
            args.quiet = True
            cli.show_notes(True)
            stack.enter_context(redirect_stdout(None))
        elif args.save or args.resume:
            if args.save:
                make_folder(args.save, args.overwrite)
            locked = stack.enter_context(lock(args.save or args.resume))
        run, checkpoint = _begin(args, given, recipe)
        if team:
            workers.compare_data(team, run, checkpoint)
        if args.refit:
            run = _choose_epochs(args, run, devices, team)
        if args.save and first:
            checkpoint = Checkpoint(args.save, run, args.overwrite)
        if checkpoint:
            checkpoint.locked = locked
        training, history = _train(args, run, checkpoint, devices, team)
        report(args, training, run, history)


def _begin(
    args: argparse.Namespace, given: set[str], recipe: Recipe | Blend
) -> tuple[Run, Checkpoint | None]:
    """Say what is trained, and reopen the folder that it goes on from."""
    if not args.resume:
        run = _new_run(args, recipe)
        if not args.quiet:
            print(_summary(run))
        return run, None
    checkpoint = _reopen(args, given)
    run, past = checkpoint.run, len(checkpoint.history)
    if not args.quiet:
        print(_summary(run))
        if past:
            print(f"going on after epoch {past} of {run.recipe.num_epochs}")
    return run, checkpoint


def _choose_epochs(
    args: argparse.Namespace, run: Run, devices: list[mx.Context], team: Team | None
) -> Run:
    """Choose the number of epochs on the validation part; return what to train then."""
    from ..training import Training

    training = Training.of(run, devices, team=team)
    _pretrain(args, training)
    epochs = training.epochs()
    if not args.quiet:
        epochs = _estimated(epochs, run.recipe.num_epochs)
    try:
        with _progress(args, run.recipe.num_epochs) as progress:
            history = _until_the_end(run, training, epochs, progress.show)
        best, recipe = training.choose(history)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(
            f"{_how(interrupt)} while choosing on the validation part; nothing of that "
            "is kept"
        ) from None
    run = run.refit(recipe, best)
    print(
        f"{_chosen(recipe, best)}, validation RMSE {best.valid_rmse:.3f}; now on all "
        f"{run.parts.train_mat.nnz:,} ratings:"
    )
    return run


def _until_the_end(
    run: Run,
    training: Training,
    epochs: Iterable[Epoch],
    note: Callable[[Epoch], object],
    past: Sequence[Epoch] = (),
) -> list[Epoch]:
    """Go through epochs until patience ends; return them, with those of the past."""
    stopping = training.patience(run.patience) if run.patience else None
    history: list[Epoch] = []
    for epoch in chain(past, epochs):
        history.append(epoch)
        note(epoch)
        if stopping and stopping.ends(epoch):
            break
    return history


@contextmanager
def _progress(
    args: argparse.Namespace, num_epochs: int, baseline: float | None = None
) -> Iterator[Any]:
    """Show epochs as they pass by, unless the command is to be quiet."""
    from ..curve import Progress

    if args.quiet:
        yield SimpleNamespace(show=lambda epoch: None)
        return
    with Progress(num_epochs, baseline) as progress:
        yield progress


def _estimated(epochs: Iterator[Epoch], num_epochs: int) -> Iterator[Epoch]:
    """Run two epochs, and say by the second one how long all of it will take."""
    first = next(epochs)  # in which loops may be compiled
    start = time.perf_counter()
    second = list(islice(epochs, 1))
    minutes = 2 * num_epochs * (time.perf_counter() - start) / 60
    how_long = f"{max(60 * minutes, 1):.0f} s" if minutes < 2 else f"{minutes:.0f} min"
    if second:
        print(
            f"about {how_long} in all: {num_epochs} epochs to choose on the validation "
            "part, and at most as many on all ratings"
        )
    return chain([first], second, epochs)


def _chosen(recipe: Recipe | Blend, best: Epoch) -> str:
    if isinstance(recipe, Recipe):
        return f"best on validation: epoch {best.epoch}"
    assert recipe.weights
    networks = (
        f"{weight:.2f} of the {one.kind}-based of {one.learned}"
        for weight, one in zip(recipe.weights, recipe.recipes)
    )
    return f"weights by validation: {', '.join(networks)}"


def _pretrain(args: argparse.Namespace, training: Training) -> None:
    """Find the weights to start from, where the recipe asks for it."""
    from tqdm import tqdm

    num_epochs = training.recipe.pretrain_epochs
    if not args.quiet and num_epochs and not training.trained:
        for _ in tqdm(
            training.pretraining,
            *("pretraining with one hidden layer", num_epochs),
            unit="epoch",
        ):
            pass
    for _ in training.pretraining:  # what is left
        pass


def _train(
    args: argparse.Namespace,
    run: Run,
    checkpoint: Checkpoint | None,
    devices: list[mx.Context],
    team: Team | None,
) -> tuple[Training, list[Epoch]]:
    """Train, or go on; return the training at its best epoch, and all epochs."""
    from ..training import BestEpoch, Training

    past = list(checkpoint.history) if checkpoint else []
    training = Training.of(run, devices, len(past), team)
    saved, first = bool(args.save or args.resume), not (team and team.rank)
    if checkpoint and past:
        if first:
            checkpoint.restore(training)
        else:
            training.load({}, {})  # what the first one has
    _pretrain(args, training)
    best = BestEpoch(training)
    done: list[Epoch] = []

    def note(epoch: Epoch) -> None:
        if epoch.epoch > len(past):
            if saved:  # for which all workers meet the first one
                arrays = training.parameters(), training.state()
                if checkpoint and first:
                    checkpoint.save(epoch, *arrays)
                if team:
                    team.meet()  # the first one, which may take long
            else:
                best.keep(epoch)
            done.append(epoch)
        progress.show(epoch)

    baseline = run.parts.baseline and run.parts.baseline.models["biases"].rmse
    try:
        with _progress(args, run.recipe.num_epochs, baseline) as progress:
            epochs = training.epochs()
            history = _until_the_end(run, training, epochs, note, past)
    except KeyboardInterrupt as interrupt:
        num_epochs = run.recipe.num_epochs
        if checkpoint and checkpoint.history:
            checkpoint.check_place()
            what = (
                f"{len(checkpoint.history)} of {num_epochs} epochs are saved, go on "
                f"with --resume {checkpoint.directory}"
            )
        elif done and not saved:
            what = f"{len(done)} of {num_epochs} epochs are lost, without --save"
        else:
            raise
        raise KeyboardInterrupt(f"{_how(interrupt)}; {what}") from None
    # Of the best epoch, be it of the past.
    parameters = {} if saved else best.parameters()
    if checkpoint and first:
        parameters = checkpoint.parameters()
    training.load(parameters)
    return training, history


def _how(interrupt: KeyboardInterrupt) -> str:
    """Name what ended a command: Ctrl-C, or SIGTERM."""
    return str(interrupt) or "interrupted"


def _given(
    parser: cli.Parser, args: argparse.Namespace, argv: Sequence[str] | None
) -> set[str]:
    """Name the flags that were written, be it with their default values."""
    unset = object()
    probe = argparse.Namespace(**dict.fromkeys(vars(args), unset))
    parser.parse_args(argv, probe)
    return {name for name, value in vars(probe).items() if value is not unset}


def _recipe(
    parser: cli.Parser, args: argparse.Namespace, given: set[str]
) -> Recipe | Blend:
    """Change the preset by the flags that were written."""
    preset = PRESETS[args.preset]
    settings = {name: getattr(args, name) for name in SETTINGS if name in given}
    usual = preset.recipes[0].loss
    loss = settings.get("loss", usual)
    if "wd" not in given and (loss == "paper") != (usual == "paper"):
        whose = "the paper's lambda" if usual == "paper" else "the optimizer's"
        parser.error(
            f"the {loss} loss needs a weight decay of its own (--wd): that of --preset "
            f"{args.preset} is {whose}"
        )
    try:
        return preset.changed(**settings).averaged(args.members)
    except ValueError as error:
        parser.error(str(error))


def _check_combination(
    parser: cli.Parser, args: argparse.Namespace, given: set[str]
) -> None:
    if args.resume and (beside := given - _RESUMABLE):
        parser.error(f"--resume takes these from the model folder: {cli.flags(beside)}")
    parts.check_split(parser, args, given)
    for flag in ("overwrite", "titles"):
        if getattr(args, flag) and not args.save:
            parser.error(f"--{flag} is for --save")
    if args.title_columns and not args.titles:
        parser.error("--title-columns is for --titles")
    if args.patience and not (args.valid_ratio or args.resume):
        parser.error("--patience needs a validation part (--valid-ratio 0.1)")
    if args.refit and not args.valid_ratio:
        parser.error("--refit needs a validation part (--valid-ratio 0.1)")


def _new_run(args: argparse.Namespace, recipe: Recipe | Blend) -> Run:
    """Load and split the ratings that the flags ask for."""
    from ..loop import seed_everything
    from ..ratings import read_titles
    from ..training import Parts, Run

    ratings, pieces = parts.load(args)
    ratings.check_varied(pieces[0] if pieces else None)
    if args.titles:
        item_ids = ratings.item_ids.tolist()
        titles = read_titles(args.titles, item_ids, args.encoding, args.title_columns)
        ratings = replace(ratings, titles={**ratings.titles, **titles})
    if not args.quiet:
        print(ratings.summary())
    seed_everything(args.seed)
    cut = parts.cut(args, ratings, pieces)
    return Run(
        Parts.of(ratings, *cut, split=parts.described(args)),
        recipe,
        args.seed,
        args.patience,
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
        run = replace(run, recipe=run.recipe.changed(num_epochs=args.num_epochs))
    if args.patience:
        if run.parts.valid_mat is None:
            raise ModelError(f"{args.resume}: has no validation part for --patience")
        run = replace(run, patience=args.patience)
    checkpoint.run = run
    return checkpoint


def _layers(num_hidden: int | list[int]) -> int | tuple[int, ...]:
    if isinstance(num_hidden, int):  # the default
        return num_hidden
    return num_hidden[0] if len(num_hidden) == 1 else tuple(num_hidden)


def _summary(run: Run) -> str:
    parts = run.parts
    line = (
        f"{parts.split.get('split_mode', 'own')} split, seed {run.seed}: "
        f"{parts.train_mat.nnz:,} ratings to train on"
    )
    if parts.test_mat is not None:
        line += f", {parts.test_mat.nnz:,} to test on"
    if parts.valid_mat is not None:
        line += f", {parts.valid_mat.nnz:,} to validate on"
    return line


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m d2l_autorec.train",
        description="Train AutoRec on rating data and score it on held-out ratings. "
        "Without flags: the book's recipe on MovieLens 100K.",
    )
    cli.add_data_flags(parser)
    cli.add_ratings_flags(parser)
    parts.add_split_flags(parser)
    recipe = parser.add_argument_group(
        "recipe", "A flag given beside --preset changes that setting of it."
    )
    recipe.add_argument(
        "--preset",
        choices=("book", "paper", "best"),
        default="book",
        help="all of the settings below at once: the book's, which are the defaults; "
        "the paper's model and objective; or a blend of five networks, item- and "
        "user-based, with weights that --valid-ratio of the training ratings chooses "
        "(by default a tenth) before all of them are trained on",
    )
    recipe.add_argument(
        "--members",
        type=cli.positive_int,
        default=1,
        metavar="N",
        help="networks of each kind, to train side by side and to average",
    )
    cli.add_recipe_flags(recipe)
    recipe.add_argument(
        "--patience",
        type=cli.positive_int,
        metavar="N",
        help="stop after N epochs without a new best on the validation part, counted "
        "once the network is better there than biases, or after 500 steps",
    )
    recipe.add_argument(
        "--refit",
        action="store_true",
        help="once the best epoch on the validation part is found, train anew on that "
        "part as well, to that epoch, where a cosine schedule then ends",
    )
    machines = parser.add_argument_group("machines")
    machines.add_argument(
        "--workers",
        type=cli.positive_int,
        metavar="N",
        help="share the users out over N workers on this machine; for several "
        "machines start this command by mpiexec (docs/distributed.md)",
    )
    saving = parser.add_argument_group("saving")
    saving.add_argument(
        "--save",
        type=cli.output_folder,
        metavar="DIR",
        help="keep the model there, with the last epoch and the best on validation",
    )
    cli.add_title_flags(saving, "keep titles of the items with it, item,title a line")
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
