"""Compare AutoRec with simpler models: ``python -m d2l_autorec.compare``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import topn
from ..study import ALIASES, MODELS
from ..training import POSITIVE_INT
from . import cli, lists, notes, parts
from .checks import LAYOUT
from .cli import flag
from .process import show_notes
from .results import json_writer, publish

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from ..ratings import Ratings
    from ..study import Contender, Score, Split

# What is compared without --models: the rest takes ten times as long, or more.
QUICK_MODELS = ["mean", "biases", "mf", "book", "autorec-early"]
BEGIN, END = "<!-- compare:begin -->", "<!-- compare:end -->"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command, by default with the process's own arguments."""
    parser = make_parser()
    args = parser.parse_flags(argv)
    show_notes(args.quiet)

    # Only now, so that --help and a bad flag need not wait for MXNet.
    from ..serving import save_figure, save_tables
    from ..study import Contender, ListModel

    implicit = args.feedback == "implicit"
    parse: Any = ListModel.parse if implicit else Contender.parse
    usual = lists.QUICK_MODELS if implicit else QUICK_MODELS
    try:
        models = {one.name: one for one in map(parse, args.models or usual)}
        args.against = args.against and parse(args.against).name
    except ValueError as error:
        parser.error(f"argument --models or --against: {error}")
    if args.against and args.against not in models:
        parser.error(f"--against {args.against} is not one of --models")
    ratings, pieces = parts.load(args)
    seeds, splits, num_runs = splits_of(args, ratings, pieces)
    if args.feedback == "implicit":  # as asked for, or as the ratings are
        lists.compare(args, models if implicit else {}, (seeds, splits, num_runs))
        return
    comparison = Comparison(args, ratings, models, seeds)
    comparison.run(splits, num_runs)
    report = notes.report(comparison)
    publish(
        report,
        (args.json, json_writer(comparison.result())),
        (args.predictions, partial(save_tables, comparison.predictions)),
        (args.markdown, partial(write_between_markers, report)),
        (args.plot, lambda file: save_figure(comparison.chart(), file)),
    )


class Comparison:
    """The models that are compared, the runs, and what came of them.

    Scores, settings and titles have the models' names as their keys; `runs` and `cold`
    have an entry a run.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        ratings: Ratings,
        contenders: Mapping[str, Contender],
        seeds: list[int],
    ) -> None:
        """Make the models."""
        from ..loop import try_all_gpus

        self.args, self.ratings, self.seeds = args, ratings, seeds
        self.devices = try_all_gpus()
        made = {n: one.make(ratings, self.devices) for n, one in contenders.items()}
        self.models = made
        self.titles = {
            name: ", ".join(filter(None, [model.title, contenders[name].given]))
            for name, model in made.items()
        }
        self.settings = {name: model.settings for name, model in made.items()}
        self.runs: list[str] = []
        self.cold: list[dict[str, Any]] = []
        self.scores: dict[str, list[Score]] = {name: [] for name in made}
        self.predictions: list[pd.DataFrame] = []
        self.protocol: dict[str, float] | None = None

    def run(self, splits: Iterator[Split], num_runs: int) -> None:
        """Train and score each model in each run."""
        from tqdm import tqdm

        from ..study import book_protocol

        # Other data have no figures of the book to compare with, whatever their name.
        books = self.ratings.name == "ml-100k" and not self.args.ratings
        mf: Any = self.models.get("mf") if books else None
        total = num_runs * len(self.models) + bool(mf)
        with tqdm(total=total, unit="model", disable=self.args.quiet) as bar:
            for run in splits:
                self.runs.append(run.name)
                self.cold.append(run.cold())
                found = {name: self._score(name, run, bar) for name in self.models}
                if self.args.predictions:
                    self.predictions.append(self._table(run, found))
            if mf:
                bar.set_postfix_str("the book's own protocol for its MF")
                self.protocol = book_protocol(mf, self.ratings, self.seeds[0])
                bar.update()

    def _score(self, name: str, run: Split, bar: Any) -> Any:
        """Train and score a model in a run; return its predictions."""
        from .. import study
        from ..errors import TrainingDiverged

        model, doing = self.models[name], f"{run.name}, {self.titles[name]}"

        def tick(epoch: int) -> None:
            at = f"epoch {epoch}" if epoch else "preparing"
            bar.set_postfix_str(f"{doing}, {at}")

        tick(0)
        try:
            found = study.score(model, run, tick, self.args.ranking)
        except TrainingDiverged as error:
            raise TrainingDiverged(f"{doing}: {error}") from None
        self.scores[name].append(found._replace(predictions=None))
        bar.update()
        return found.predictions

    def _table(self, run: Split, found: Mapping[str, Any]) -> pd.DataFrame:
        """List the held-out ratings of a run with what was predicted, in their unit."""
        table = self.ratings.frame(run.test_rows)[["user_id", "item_id", "rating"]]
        table.insert(0, "run", run.name)
        table.insert(1, "seed", run.seed)
        for name, predictions in found.items():
            table[name] = predictions - self.ratings.rating_offset
        return table

    @property
    def rival(self) -> str | None:
        """The model that --against names, or the best simple one."""
        from ..study import best_simple

        return self.args.against or best_simple(self.scores)

    @property
    def where(self) -> str:
        """The data, the split and the seeds, in words."""
        from ..ratings import label
        from ..study import span

        args, ratings = self.args, self.ratings
        split = f"{args.splits} split"
        if args.test_ratings:
            split = f"tested on {args.test_ratings}"
        size = ratings.num_users, ratings.num_items, ratings.num_ratings
        noun = "seeds" if len(self.seeds) > 1 else "seed"
        return f"{label(ratings.name, size)}, {split}, {noun} {span(self.seeds)}"

    def result(self) -> dict[str, Any]:
        """Collect what --json writes."""
        from ..serving import versions
        from ..study import fingerprint

        args = self.args
        reading = ("ratings", "test_ratings", *LAYOUT)
        return {
            "dataset": self.ratings.name,
            "data": fingerprint(self.ratings),
            "reading": {n: getattr(args, n) for n in reading} if args.ratings else None,
            "splits": args.test_ratings or args.splits,
            "seeds": self.seeds,
            "against": self.rival,
            "clipped": [name for name, model in self.models.items() if model.clips],
            "runs": [{"name": n, "cold": c} for n, c in zip(self.runs, self.cold)],
            "models": {
                name: {
                    "title": self.titles[name],
                    "settings": self.settings[name],
                    "scores": [score.as_dict() for score in found],
                }
                for name, found in self.scores.items()
            },
            "book_protocol": self.protocol,
            "devices": [str(device) for device in self.devices],
            "versions": versions(),
        }

    def chart(self) -> Figure:
        """Draw the errors and the learning curves."""
        from ..study import comparison_chart

        found = [(self.titles[name], scores) for name, scores in self.scores.items()]
        figure = comparison_chart(
            {title: [s.measures["rmse"] for s in scores] for title, scores in found},
            {title: [s.curve for s in scores] for title, scores in found},
        )
        several = ", mean and standard deviation" if len(self.runs) > 1 else ""
        figure.suptitle(f"{self.where}{several}")
        return figure


def splits_of(
    args: argparse.Namespace, ratings: Ratings, pieces: Any
) -> tuple[list[int], Iterator[Split], int]:
    """Return the seeds, the splits that they make, and how many these are."""
    from .. import study

    folds = "5" if args.splits == "u1-u5" else args.splits.partition("-fold")[0]
    num_folds = int(folds) if folds.isdecimal() else 1
    # With folds, or a file to test on, other seeds make no other parts.
    seeds = args.seeds or list(range(1 if pieces or num_folds > 1 else 5))
    splits = study.make_splits(ratings, args.splits, seeds, args.data_dir)
    if pieces:
        splits = iter([study.Split(f"seed {n}", n, ratings, *pieces) for n in seeds])
    return seeds, splits, len(seeds) * num_folds


def write_between_markers(report: str, file: Path) -> None:
    """Put the report between the file's markers; a new file gets them too."""
    from ..serving import save_text

    text = file.read_text(encoding="utf-8") if file.is_file() else f"{BEGIN}{END}\n"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    save_text(f"{before}{BEGIN}\n\n{report}\n\n{END}{after}", file)


@partial(cli.Kind, "SPLITS")
def _splits(text: str) -> str:
    if not re.fullmatch(r"random|seq-aware|users|u1-u5|([2-9]|[1-9]\d+)-fold", text):
        raise ValueError(
            f"{text!r} is not random, seq-aware, users, u1-u5, or such as 5-fold"
        )
    return text


@partial(cli.Kind, "FILE")
def _markdown_file(text: str) -> Path:
    file: Path = cli.output_file(text)
    if file.is_file():
        try:
            _, begin, rest = file.read_text(encoding="utf-8").partition(BEGIN)
        except UnicodeDecodeError:
            raise ValueError(f"{file} is not UTF-8") from None
        if not begin or END not in rest:
            raise ValueError(
                f"{file} exists and has no lines {BEGIN} and {END} to write between"
            )
    return file


COMPARISON = {
    "--models": flag(
        f"some of {', '.join([*MODELS, *ALIASES])}; of lists {', '.join(topn.MODELS)}; "
        "with settings as in book:num_hidden=200:lr=0.001; of several values, as in "
        "book:wd=1e-5/1e-4, a tenth of the training ratings chooses (default: "
        f"{', '.join(QUICK_MODELS)}; of lists {', '.join(lists.QUICK_MODELS)})",
        cli.words,
    ),
    "--against": flag(
        "the model that the others are compared with, run by run (default: the best of "
        "mean, biases, mf and biased-mf; of lists popularity)",
        "NAME",
    ),
    "--splits": flag(
        "what is held out: a random tenth, another one for each seed (random); each "
        "user's newest rating (seq-aware); for lists, a fifth of the pairs of a tenth "
        "of the users, on whom no model is trained (users); the five folds that come "
        "with ml-100k, in turn (u1-u5); or each of N random parts in turn (5-fold, "
        "...)",
        _splits,
        "random",
    ),
    **cli.HELD_OUT,
    "--at": flag(
        "lengths of the lists to measure, such as 10,20,50",
        cli.Kind(
            "LIST", lambda text: sorted(set(map(POSITIVE_INT.parse, text.split(","))))
        ),
        [10, 20, 50],
    ),
    "--ranking": flag(
        "also NDCG@10, recall@10 and precision@10 of each user's held-out items"
    ),
    "--seeds": flag(
        "such as 0-4 or 0,3,7: of the random splits, and of the models (default: 0-4; "
        "with folds, all of which each seed goes through, or --test-ratings, 0)",
        cli.seeds,
    ),
}
OUTPUT = {
    "--plot": flag(
        "draw the errors and the learning curves (.png, .svg or .pdf)", cli.plot_file
    ),
    "--json": flag(
        "write every score and every learning curve, with data, settings and versions",
        cli.output_file,
    ),
    "--predictions": flag(
        "write each held-out rating of each run and every model's prediction of it (of "
        "lists, each user's measures by each model), as Parquet if FILE ends in "
        ".parquet, else as CSV",
        cli.output_file,
    ),
    "--markdown": flag(
        f"write the report; into an existing file, between its lines {BEGIN} and {END}",
        _markdown_file,
    ),
}


def make_parser() -> cli.Parser:
    """Make the parser of the flags."""
    return cli.Parser(
        prog="python -m d2l_autorec.compare",
        description="Compare AutoRec with simpler models: each is trained on the same "
        "splits with the same seeds, and scored on the same held-out ratings. Without "
        "flags: five random splits of MovieLens 100K, about three minutes on 2 cores.",
        groups={
            "data": cli.DATA,
            "your own ratings": cli.RATINGS,
            "task": cli.FEEDBACK,
            "comparison": COMPARISON,
            "output": {**cli.QUIET, **OUTPUT},
        },
    )
