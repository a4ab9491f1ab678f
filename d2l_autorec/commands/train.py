"""Train AutoRec: ``python -m d2l_autorec.train``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..cluster import check_recipe, launched
from ..topn import MODELS
from ..training import PRESETS, SETTINGS, VALID_RATIO, Blend, Recipe
from . import cli, lists, parts, workers
from .cli import flag
from .process import interrupted_by, show_notes
from .report import report

if TYPE_CHECKING:
    from .._mxnet import mx
    from ..cluster import Team
    from ..curve import Epoch
    from ..serving import Checkpoint
    from ..training import Parts, Run, Training


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command, by default with the process's own arguments."""
    parser = make_parser()
    args = parser.parse_flags(argv)
    several = launched()
    if several:
        workers.enter()
    show_notes(args.quiet)
    implicit = args.feedback == "implicit"
    if implicit:
        lists.check_model(parser, args)
    elif isinstance(PRESETS[args.preset], Blend) and not args.resume:
        args.refit, args.valid_ratio = True, args.valid_ratio or VALID_RATIO
    recipe = Recipe() if implicit or args.warm_start else _recipe(parser, args)
    if several and args.warm_start:
        parser.error("--warm-start is for one process")
    if args.workers or several:
        check_recipe(recipe)
    if args.workers and not several:
        workers.launch(args.workers, sys.argv[1:] if argv is None else argv)

    # Only now, so that --help and a bad flag need not wait for MXNet.
    from ..serving import Checkpoint, lock, make_folder
    from ..training import Run

    devices = cli.parse_devices(args.devices)
    team = workers.meet(args, devices) if several else None
    job = _Job(args, devices, team)
    with ExitStack() as stack:
        locked = None
        if not job.first:
            stack.enter_context(redirect_stdout(None))
            args.plot, args.json, args.quiet = None, None, True
            show_notes(quiet=True)
        elif args.save or args.resume:
            if args.save:
                make_folder(args.save, args.overwrite)
            locked = stack.enter_context(lock(args.save or args.resume))
        checkpoint = _reopen(args) if args.resume else None
        held = checkpoint.run.parts if checkpoint else _load(args)
        if args.feedback == "implicit":  # as asked for, or as the ratings are
            lists.train(args, held)
            return
        old = Checkpoint.open(args.warm_start) if args.warm_start else None
        if old:
            recipe = _recipe(parser, args, old.run.recipe.changed(pretrain_epochs=0))
        run = Run(held, recipe, args.seed, args.patience)
        run = checkpoint.run if checkpoint else run
        if not args.quiet:
            print(_summary(run, checkpoint))
        if team:
            workers.compare_data(team, run, checkpoint)
        if args.refit:
            run = job.choose(run)
        if args.save and job.first:
            checkpoint = Checkpoint(args.save, run, args.overwrite)
        if checkpoint:
            checkpoint.locked = locked
        training = job.train(run, checkpoint, old)
        report(args, training, run, training.history)


@dataclass
class _Job:
    """The trainings of a command: what they are done with, and how they are shown."""

    args: argparse.Namespace
    devices: list[mx.Context]
    team: Team | None

    @property
    def first(self) -> bool:
        """Whether this is the first of several workers, or the only one."""
        return not (self.team and self.team.rank)

    def choose(self, run: Run) -> Run:
        """Choose epochs, or weights, on the validation part; return what to train."""
        from ..training import Training

        training = Training(run, self.devices, team=self.team)
        try:
            for _ in self._epochs(training):
                pass
            best, run = training.choose()
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt(
                f"{interrupted_by(interrupt)} while choosing on the validation part; "
                "nothing of that is kept"
            ) from None
        print(
            f"{_chosen(run.recipe, best)}, validation RMSE {best.valid_rmse:.3f}; now "
            f"on all {run.parts.train_mat.nnz:,} ratings:"
        )
        return run

    def train(
        self, run: Run, checkpoint: Checkpoint | None, old: Checkpoint | None
    ) -> Training:
        """Train, or go on, or begin as an old model; it is then at its best epoch.

        Of several workers, the first has the folder; the others have what it has.
        """
        from ..curve import best_epoch
        from ..serving import warm_start
        from ..training import Training

        history = checkpoint.history if checkpoint else []
        training = Training(run, self.devices, history, self.team)
        writes = checkpoint if self.first else None
        in_folder = bool(self.args.save or self.args.resume)
        if history:
            training.load({}, {}) if writes is None else writes.restore(training)
        if old:
            print(warm_start(training, old))
        chooses, best = run.parts.valid_mat is not None, dict[str, Any]()
        try:
            with closing(self._epochs(training)) as epochs:
                for epoch in epochs:
                    if in_folder:
                        arrays = training.parameters(), training.state()  # of all
                        if writes:
                            writes.save(epoch, *arrays)
                        if self.team:
                            self.team.barrier()  # the first one, which may take long
                    elif chooses and best_epoch(training.history) is epoch:
                        best.update(training.parameters())
        except KeyboardInterrupt as interrupt:
            left = _left(checkpoint, len(training.history), run.recipe.num_epochs)
            raise KeyboardInterrupt(f"{interrupted_by(interrupt)}{left}") from None
        if in_folder or best:
            training.load(writes.parameters() if writes else best)
        return training

    def _epochs(self, training: Training) -> Generator[Epoch, None, None]:
        """Train to the end, and show each epoch, those of the past as well."""
        from tqdm import tqdm

        from ..curve import Progress

        run, past = training.run, list(training.history)
        for _ in tqdm(
            training.pretraining,
            *("pretraining with one hidden layer", run.recipe.pretrain_epochs),
            unit="epoch",
            disable=self.args.quiet or not run.recipe.pretrain_epochs or bool(past),
        ):
            pass
        if self.args.quiet:
            yield from training.epochs()
            return
        simple = run.parts.baseline
        baseline = simple and simple.models["biases"].rmse
        with Progress(run.recipe.num_epochs, baseline) as progress:
            for epoch in past:
                progress.show(epoch)
            for epoch in training.epochs():
                yield epoch
                progress.show(epoch)


def _left(checkpoint: Checkpoint | None, trained: int, num_epochs: int) -> str:
    """Say what an interrupt has left of a training."""
    if checkpoint and checkpoint.history:
        checkpoint.check_place()
        return (
            f"; {len(checkpoint.history)} of {num_epochs} epochs are saved, go on with "
            f"--resume {checkpoint.directory}"
        )
    if trained and not checkpoint:
        return f"; {trained} of {num_epochs} epochs are lost, without --save"
    return ""


def _chosen(recipe: Recipe | Blend, best: Epoch) -> str:
    """Say what the validation part has chosen."""
    if isinstance(recipe, Recipe):
        return f"best on validation: epoch {best.epoch}"
    assert recipe.weights
    networks = (
        f"{weight:.2f} of the {one.kind}-based of {one.learned}"
        for weight, one in zip(recipe.weights, recipe.recipes)
    )
    return f"weights by validation: {', '.join(networks)}"


def _recipe(
    parser: cli.Parser, args: argparse.Namespace, old: Recipe | Blend | None = None
) -> Recipe | Blend:
    """Change the preset, or an older model's recipe, by the flags that were written."""
    preset = old or PRESETS[args.preset]
    settings = {name: getattr(args, name) for name in SETTINGS if name in args.given}
    if isinstance(layers := settings.get("num_hidden"), list):
        settings["num_hidden"] = tuple(layers) if len(layers) > 1 else layers[0]
    usual = preset.recipes[0].loss
    loss = settings.get("loss", usual)
    if "wd" not in settings and (loss == "paper") != (usual == "paper"):
        whose = "the paper's lambda" if usual == "paper" else "the optimizer's"
        parser.error(
            f"the {loss} loss needs a weight decay of its own (--wd): that of --preset "
            f"{args.preset} is {whose}"
        )
    try:
        return preset.changed(**settings).averaged(args.members)
    except ValueError as error:
        parser.error(str(error))


def _load(args: argparse.Namespace) -> Parts:
    """Load and split the ratings that the flags ask for."""
    from ..loop import seed_everything
    from ..ratings import read_titles
    from ..training import Parts

    ratings, pieces = parts.load(args)
    if args.titles:
        item_ids = ratings.item_ids.tolist()
        titles = read_titles(args.titles, item_ids, args.encoding, args.title_columns)
        ratings = replace(ratings, titles={**ratings.titles, **titles})
    seed_everything(args.seed)
    cut = parts.cut(args, ratings, pieces)
    return Parts.of(ratings, *cut, split=parts.described(args))


def _reopen(args: argparse.Namespace) -> Checkpoint:
    """Open a model folder, for more epochs or another patience if flags ask for it."""
    from ..errors import ModelError
    from ..serving import Checkpoint

    def refuse(why: str) -> None:
        raise ModelError(f"{args.resume}: {why}")

    checkpoint = Checkpoint.open(args.resume)
    run, trained = checkpoint.run, len(checkpoint.history)
    if "num_epochs" in args.given:
        planned = run.recipe.num_epochs
        schedules = {one.schedule for one in run.recipe.recipes}
        if args.num_epochs < trained:
            refuse(f"is already trained for {trained} epochs")
        if "cosine" in schedules and args.num_epochs != planned:
            refuse(
                f"its cosine schedule ends with epoch {planned}; for {args.num_epochs} "
                "epochs train anew"
            )
        run = replace(run, recipe=run.recipe.changed(num_epochs=args.num_epochs))
    if args.patience:
        if run.parts.valid_mat is None:
            refuse("has no validation part for --patience")
        run = replace(run, patience=args.patience)
    checkpoint.run = run
    return checkpoint


def _summary(run: Run, checkpoint: Checkpoint | None) -> str:
    """Say what is trained on, and which epochs lie behind."""
    parts = run.parts
    line = (
        f"{parts.split.get('split_mode', 'own')} split, seed {run.seed}: "
        f"{parts.train_mat.nnz:,} ratings to train on"
    )
    if parts.test_mat is not None:
        line += f", {parts.test_mat.nnz:,} to test on"
    if parts.valid_mat is not None:
        line += f", {parts.valid_mat.nnz:,} to validate on"
    if checkpoint and checkpoint.history:
        past = len(checkpoint.history)
        line += f"\ngoing on after epoch {past} of {run.recipe.num_epochs}"
    return line


@partial(cli.Kind, "NAME")
def _preset(text: str) -> str:
    known = list(dict.fromkeys([*PRESETS, *MODELS]))
    if text.partition(":")[0] not in known:
        raise ValueError(f"{text!r} is not one of {', '.join(known)}")
    return text


RECIPE = {
    "--preset": flag(
        "all of the settings below at once, which a flag beside it changes: the "
        "book's, which are the defaults; the paper's model and objective; or with best "
        "a blend of five networks, item- and user-based, with weights that "
        "--valid-ratio of the training ratings chooses (by default a tenth) before all "
        "of them are trained on. With --feedback implicit a model of lists, by default "
        f"ease: {', '.join(MODELS)}; with settings as in mult-vae:lr=0.001 and, "
        "for a tenth of the training pairs to choose, values as in ease:l2=250/500",
        _preset,
        "book",
    ),
    "--members": flag(
        "networks of each kind, to train side by side and to average",
        cli.positive_int,
        1,
    ),
}
END = {
    "--patience": flag(
        "stop after N epochs without a new best on the validation part, counted once "
        "the network is better there than biases, or after 500 steps",
        cli.positive_int,
    ),
    "--refit": flag(
        "once the best epoch on the validation part is found, train again on that "
        "part as well, to that epoch, where a cosine schedule then ends; a model of "
        "lists needs no --valid-ratio, and takes a tenth"
    ),
}
MACHINES = {
    "--workers": flag(
        "divide the users among N workers on this machine; for several machines "
        "start this command by mpiexec (docs/distributed.md)",
        cli.positive_int,
    ),
    "--devices": flag(
        "cpu, gpu (all of them), or a list like cpu:0,cpu:1 (default: every GPU, or "
        "the CPU if there is none)",
        cli.device_names,
    ),
}
SAVING = {
    "--save": flag(
        "save the model there, with the last epoch and the best on validation",
        cli.output_folder,
    ),
    "--overwrite": flag("let --save replace a model that is there"),
    "--warm-start": flag(
        "begin with the weights of the model there, by its recipe; only users, or with "
        "--kind user items, that it does not have begin anew",
        "DIR",
    ),
    "--resume": flag(
        "continue a training that was saved there, and save there", cli.output_folder
    ),
}
OUTPUT = {
    "--plot": flag("write the learning curve (.png, .svg or .pdf)", cli.plot_file),
    "--json": flag("write settings, history and result", cli.output_file),
}


def make_parser() -> cli.Parser:
    """Make the parser of the flags."""
    return cli.Parser(
        prog="python -m d2l_autorec.train",
        description="Train AutoRec on rating data and score it on held-out ratings. "
        "Without flags: the book's recipe on MovieLens 100K.",
        groups={
            "data": cli.DATA,
            "your own ratings": cli.RATINGS,
            "task": cli.FEEDBACK,
            "split": parts.SPLIT,
            "recipe": {**RECIPE, **cli.recipe_flags(), **END},
            "machines": MACHINES,
            "saving": {**SAVING, **cli.TITLES},
            "output": {**cli.QUIET, **OUTPUT},
        },
    )
