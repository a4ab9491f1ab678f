"""Compare AutoRec with simpler models: ``python -m d2l_autorec.compare``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..study import ALIASES, MODELS
from . import cli, lists, notes, parts
from .checks import LAYOUT, LIST_MODELS
from .cli import Flag
from .process import show_notes
from .results import json_writer, publish

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from .._mxnet import mx
    from ..ratings import Ratings
    from ..study import Contender, Estimator, Score, Split

# What is compared without --models: the rest takes ten times as long, or more.
QUICK_MODELS = ["mean", "biases", "mf", "book", "autorec-early"]
BEGIN, END = "<!-- compare:begin -->", "<!-- compare:end -->"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command, by default with the process's own arguments."""
    parser = _parser()
    args = parser.parse_flags(argv)
    show_notes(args.quiet)

    # Only now, so that --help and a bad flag need not wait for MXNet.
    from ..serving import save_figure, save_tables
    from ..study import Contender, ListModel

    implicit = args.feedback == "implicit"
    if "models" not in args.given:
        args.models = lists.QUICK_MODELS if implicit else QUICK_MODELS
    try:
        parse: Any = ListModel.parse if implicit else Contender.parse
        contenders = {one.name: one for one in map(parse, args.models)}
    except ValueError as error:
        parser.error(f"argument --models: {error}")
    ratings, pieces = parts.load(args)
    if args.feedback == "implicit":  # as asked for, or as the ratings are
        runs = splits_of(args, ratings, pieces)
        lists.compare(args, contenders if implicit else {}, runs)
        return
    comparison = Comparison.load(args, contenders, ratings, pieces)
    comparison.run()
    report = notes.report(comparison)
    publish(
        report,
        (args.json, json_writer(comparison.result())),
        (args.predictions, partial(save_tables, comparison.predictions)),
        (args.markdown, partial(write_between_markers, report)),
        (args.plot, lambda file: save_figure(comparison.chart(), file)),
    )


@dataclass
class Comparison:
    """The models that are compared, the runs, and what came of them.

    Scores, settings and titles have the models' names as their keys; `runs` and `cold`
    have an entry a run.
    """

    args: argparse.Namespace
    ratings: Ratings
    devices: list[mx.Context]
    models: Mapping[str, Estimator]
    titles: dict[str, str]
    seeds: list[int]
    splits: Iterator[Split]
    num_runs: int
    runs: list[str] = field(default_factory=list)
    cold: list[dict[str, Any]] = field(default_factory=list)
    scores: dict[str, list[Score]] = field(default_factory=dict)
    predictions: list[pd.DataFrame] = field(default_factory=list)
    protocol: dict[str, float] | None = None

    @classmethod
    def load(
        cls,
        args: argparse.Namespace,
        contenders: Mapping[str, Contender],
        ratings: Ratings,
        pieces: Any,
    ) -> Comparison:
        """Make the models and the splits."""
        from ..loop import try_all_gpus

        devices = try_all_gpus()
        models = {name: one.make(ratings, devices) for name, one in contenders.items()}
        titles = {
            name: ", ".join(filter(None, [model.title, contenders[name].given]))
            for name, model in models.items()
        }
        runs = splits_of(args, ratings, pieces)
        return cls(args, ratings, devices, models, titles, *runs)

    def run(self) -> None:
        """Train and score each model in each run."""
        from tqdm import tqdm

        from ..study import book_protocol

        # Other data have no figures of the book to compare with, whatever their name.
        books = self.ratings.name == "ml-100k" and not self.args.ratings
        mf: Any = self.models.get("mf") if books else None
        self.settings = {name: model.settings for name, model in self.models.items()}
        self.scores = {name: [] for name in self.models}
        total = self.num_runs * len(self.models) + bool(mf)
        with tqdm(total=total, unit="model", disable=self.args.quiet) as bar:
            for run in self.splits:
                self.runs.append(run.name)
                self.cold.append(run.cold())
                self._run(run, bar)
            if mf:
                bar.set_postfix_str("the book's own protocol for its MF")
                self.protocol = book_protocol(mf, self.ratings, self.seeds[0])
                bar.update()

    def _run(self, run: Split, bar: Any) -> None:
        """Train and score each model in a run."""
        from .. import study
        from ..errors import TrainingDiverged

        table = self._held_out(run) if self.args.predictions else None
        for name, model in self.models.items():
            doing = f"{run.name}, {self.titles[name]}"
            bar.set_postfix_str(doing)

            def tick(epoch: int, doing: str = doing) -> None:
                at = f"epoch {epoch}" if epoch else "preparing"
                bar.set_postfix_str(f"{doing}, {at}")

            try:
                found = study.score(model, run, tick, self.args.ranking)
            except TrainingDiverged as error:
                raise TrainingDiverged(f"{doing}: {error}") from None
            self.scores[name].append(found)
            if table is not None:
                predicted = model.predict(run.test_rows)
                table[name] = predicted - self.ratings.rating_offset
            bar.update()
        if table is not None:
            self.predictions.append(table)

    def _held_out(self, run: Split) -> pd.DataFrame:
        """List the held-out ratings of a run, in the unit of the file."""
        table = self.ratings.frame(run.test_rows)[["user_id", "item_id", "rating"]]
        table.insert(0, "run", run.name)
        table.insert(1, "seed", run.seed)
        return table

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
        several = ", mean and standard deviation" if self.num_runs > 1 else ""
        figure.suptitle(f"{self.where}{several}")
        return figure


def splits_of(
    args: argparse.Namespace, ratings: Ratings, pieces: Any
) -> tuple[list[int], Iterator[Split], int]:
    """Return the seeds, the splits that they make, and how many these are."""
    from .. import study

    num_folds = _num_folds(args.splits)
    fixed = pieces or num_folds > 1  # whatever the seed
    seeds = args.seeds or list(range(1 if fixed else 5))
    splits = study.make_splits(ratings, args.splits, seeds, args.data_dir)
    if pieces:
        splits = iter([study.Split(f"seed {n}", n, ratings, *pieces) for n in seeds])
    return seeds, splits, len(seeds) * num_folds


def _num_folds(splits: str) -> int:
    """Count the runs that each seed makes."""
    if splits.endswith("-fold"):
        return int(splits[: -len("-fold")])
    return 5 if splits == "u1-u5" else 1


def write_between_markers(report: str, file: Path) -> None:
    """Put the report between the file's markers; a new file gets them too."""
    from ..serving import save_text

    text = file.read_text(encoding="utf-8") if file.is_file() else f"{BEGIN}{END}\n"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    save_text(f"{before}{BEGIN}\n\n{report}\n\n{END}{after}", file)


def _models(text: str) -> list[str]:
    return list(dict.fromkeys(text.split(",")))


@cli.parsed_by
def _splits(text: str) -> str:
    if not re.fullmatch(r"random|seq-aware|users|u1-u5|([2-9]|[1-9]\d+)-fold", text):
        raise ValueError(
            f"{text!r} is not random, seq-aware, users, u1-u5, or such as 5-fold"
        )
    return text


@cli.parsed_by
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


class _ComparisonFlags:
    """What is compared.

    models : LIST
        some of {known}; of lists {lists}; with settings as in
        book:num_hidden=200:lr=0.001; of several values, as in book:wd=1e-5/1e-4, a
        tenth of the training ratings chooses (default: {quick}; of lists {quick_lists})
    splits : SPLITS
        what is held out: a random tenth, anew for each seed (random); each user's
        newest rating (seq-aware); of lists, a fifth of the pairs of a tenth of the
        users, who are not trained on (users); the five folds that come with ml-100k,
        one after the other (u1-u5); or each of N random parts in its turn (5-fold, ...)
    test_ratings : FILE
        hold this file out, which is like that of --ratings
    at : LIST
        how long the lists are that are measured, such as 10,20,50
    ranking : bool
        also NDCG@10, recall@10 and precision@10 of each user's held-out items
    seeds : LIST
        such as 0-4 or 0,3,7: of the random splits, and of the models (default: 0-4;
        with folds, all of which each seed goes through, or --test-ratings, 0)
    """

    models = Flag(_models)
    splits, at = Flag(_splits, "random"), Flag(cli.lengths, [10, 20, 50])
    test_ratings, ranking, seeds = Flag(), Flag(bool), Flag(cli.seeds)


class _OutputFlags:
    """The files that are written.

    plot : FILE
        draw the errors and the learning curves (.png, .svg or .pdf)
    json : FILE
        write every score and every learning curve, with data, settings and versions
    predictions : FILE
        write each held-out rating of each run and every model's prediction of it (of
        lists, each user's measures by each model), as Parquet if FILE ends in .parquet,
        else as CSV
    markdown : FILE
        write the report; into an existing file, between its lines <!-- compare:begin
        --> and <!-- compare:end -->
    """

    plot, json = Flag(cli.plot_file), Flag(cli.output_file)
    predictions, markdown = Flag(cli.output_file), Flag(_markdown_file)


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m d2l_autorec.compare",
        description="Compare AutoRec with simpler models: each is trained on the same "
        "splits with the same seeds, and scored on the same held-out ratings. Without "
        "flags: five random splits of MovieLens 100K, about three minutes on 2 cores.",
    )
    parser.add_flags("data", cli.DataFlags)
    own = parser.add_argument_group("your own ratings")
    parser.add_flags("", cli.RatingsFlags, own)
    parser.add_flags("", cli.EncodingFlag, own)
    parser.add_flags("task", cli.FeedbackFlags)
    words = {
        "known": [*MODELS, *ALIASES],
        "lists": LIST_MODELS,
        "quick": QUICK_MODELS,
        "quick_lists": lists.QUICK_MODELS,
    }
    joined = {name: ", ".join(found) for name, found in words.items()}
    parser.add_flags("comparison", _ComparisonFlags, **joined)
    output = parser.add_argument_group("output")
    parser.add_flags("", cli.QuietFlag, output)
    parser.add_flags("", _OutputFlags, output)
    return parser
