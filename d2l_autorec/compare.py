"""Compare AutoRec with simpler models: ``python -m d2l_autorec.compare``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from . import cli
from .errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from .estimators import BookMF, Estimator
    from .ratings import Ratings

# What --models calls them, and their classes in estimators.py.
MODELS = {
    "mean": "GlobalMean",
    "biases": "Biases",
    "mf": "BookMF",
    "autorec": "BookAutoRec",
    "autorec-early": "EarlyStoppedAutoRec",
    "autorec-best": "BestAutoRec",
}
# What is compared without --models: the last one takes ten times as long as the rest.
QUICK_MODELS = list(MODELS)[:-1]
BEGIN, END = "<!-- compare:begin -->", "<!-- compare:end -->"


class Run(NamedTuple):
    """One split and one seed, which every model meets alike.

    Attributes
    ----------
    name : str
        ``'seed 0'``, or with a fold ``'u1, seed 0'``.
    seed : int
        Of the models, and of a random split.
    train_data, test_data : pandas.DataFrame
        The two parts.
    """

    name: str
    seed: int
    train_data: pd.DataFrame
    test_data: pd.DataFrame

    def cold(self) -> dict[str, list[Any]]:
        """List the test part's users and items that have no training rating."""
        return {
            noun: sorted(set(self.test_data[column]) - set(self.train_data[column]))
            for noun, column in (("users", "user_id"), ("items", "item_id"))
        }

    def num_cold_ratings(self) -> int:
        """Count the test ratings of such users and items."""
        cold = self.cold()
        affected = self.test_data["user_id"].isin(cold["users"])
        affected |= self.test_data["item_id"].isin(cold["items"])
        return int(affected.sum())


class Score(NamedTuple):
    """How a model did in a run.

    Attributes
    ----------
    rmse, mae : float
        Pooled over the test ratings, in the unit of the ratings.
    curve : list of float
        The RMSE after each epoch, the last of which is `rmse`; empty for a model
        without epochs.
    seconds : float
        Spent on training, with the choice of settings, without scoring.
    num_parameters : int
        Numbers that the model learned.
    """

    rmse: float
    mae: float
    curve: list[float]
    seconds: float
    num_parameters: int


def make_runs(
    ratings: Ratings, splits: str, seeds: Sequence[int], data_dir: str | None = None
) -> Iterator[Run]:
    """Split the ratings, once for all models.

    Parameters
    ----------
    ratings : Ratings
        All of them.
    splits : {'random', 'seq-aware', 'u1-u5'}
        As for `split_data_ml100k`, or the five folds of ML-100K.
    seeds : sequence of int
        Each makes one run, or one a fold.
    data_dir : str, optional
        Where the folds are, as for `load_dataset`.

    Yields
    ------
    Run

    Raises
    ------
    DataError
        If there are no such folds, or a part would be empty.
    """
    from .data import split_data_ml100k
    from .loop import seed_everything
    from .ratings import load_folds_ml100k

    if splits == "u1-u5":
        if ratings.name != "ml-100k":
            raise DataError(f"the folds u1-u5 are ml-100k's; {ratings.name} has none")
        for number, parts in enumerate(load_folds_ml100k(data_dir), 1):
            for seed in seeds:
                yield Run(f"u{number}, seed {seed}", seed, *parts)
        return
    for seed in seeds:
        seed_everything(seed)
        parts = split_data_ml100k(
            ratings.data, ratings.num_users, ratings.num_items, splits
        )
        yield Run(f"seed {seed}", seed, *parts)


def score(
    model: Estimator, run: Run, tick: Callable[[int], None] = lambda epoch: None
) -> Score:
    """Train a model on a run's training part, and score it on the test part.

    Parameters
    ----------
    model : Estimator
        It is shown the training part and the pairs to predict, no test rating.
    run : Run
        The two parts.
    tick : callable, optional
        Called with what `Estimator.fit` yields, after each epoch.

    Returns
    -------
    Score
    """
    from .evaluators import mae, rmse

    pairs, held_out = run.test_data[["user_id", "item_id"]], run.test_data["rating"]
    curve = []
    start, scoring = time.perf_counter(), 0.0
    for epoch in model.fit(run.train_data, run.seed):
        paused = time.perf_counter()
        tick(epoch)
        if epoch:
            curve.append(rmse(model.predict(pairs), held_out))
        scoring += time.perf_counter() - paused
    seconds = time.perf_counter() - start - scoring
    predictions = model.predict(pairs)
    return Score(
        rmse(predictions, held_out),
        mae(predictions, held_out),
        curve,
        seconds,
        model.num_parameters,
    )


def book_protocol(model: BookMF, ratings: Ratings, seed: int) -> dict[str, float]:
    """Score matrix factorization as the book does: another split, another measure.

    Parameters
    ----------
    model : BookMF
        It is trained anew.
    ratings : Ratings
        With timestamps.
    seed : int
        Of the training.

    Returns
    -------
    dict
        ``averaged``: what the book prints; ``pooled``: the RMSE of the same training.
    """
    from .mf import mf_evaluator, mf_pooled_evaluator

    run = next(make_runs(ratings, "seq-aware", [seed]))
    for _ in model.fit(run.train_data, run.seed):
        pass
    scored = (model.net, model.batches(run.test_data), model.devices)
    return {
        "averaged": mf_evaluator(*scored),
        "pooled": mf_pooled_evaluator(*scored),
    }


def results_table(scores: dict[str, list[Score]], titles: dict[str, str]) -> str:
    """Lay the scores out as a Markdown table that reads well as plain text too.

    Parameters
    ----------
    scores : dict
        From a model's name to its scores, run by run.
    titles : dict
        From its name to its title.

    Returns
    -------
    str
        A row a model. Each cell is mean ± sample standard deviation over the runs; a
        model wins a run if its RMSE is below that of the book's matrix factorization.
    """
    rows: list[tuple[str, ...]] = [
        ("model", "RMSE", "MAE", "RMSE against MF", "won", "parameters", "seconds")
    ]
    against = [s.rmse for s in scores.get("mf", [])]
    for name, runs in scores.items():
        difference, won = "", ""
        if against and name != "mf":
            gaps = [s.rmse - other for s, other in zip(runs, against)]
            difference = spread(gaps, "+.3f")
            won = f"{sum(gap < 0 for gap in gaps)}/{len(gaps)}"
        rows.append(
            (
                titles[name],
                spread([s.rmse for s in runs]),
                spread([s.mae for s in runs]),
                difference,
                won,
                f"{runs[0].num_parameters:,}",
                f"{statistics.mean(s.seconds for s in runs):.1f}",
            )
        )
    return markdown_table(rows)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Lay rows of cells out as a Markdown table, its first column to the left.

    Parameters
    ----------
    rows : sequence of sequence of str
        The first one is the header.

    Returns
    -------
    str
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    rule = ("-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:]))
    lines = []
    for first, *others in (rows[0], rule, *rows[1:]):
        cells = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: Sequence[float], form: str = ".3f") -> str:
    """Give the mean, and of several values the sample standard deviation."""
    mean = format(statistics.mean(values), form)
    if len(values) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(values):.3f}"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        By default the process's own arguments.
    """
    args = _parser().parse_args(argv)
    seeds = args.seeds or ([0] if args.splits == "u1-u5" else list(range(5)))

    # Only now, so that --help and a bad flag need not wait for MXNet.
    from tqdm import tqdm

    from . import estimators
    from ._mxnet import mx
    from .files import replacing
    from .loop import try_all_gpus
    from .plots import comparison_chart, save_figure

    ratings = cli.load_ratings(
        args.dataset, args.data_dir, args.markdown, args.plot, args.json
    )
    if not args.quiet:
        print(ratings.summary())
    devices = try_all_gpus()
    models: dict[str, Estimator] = {
        name: getattr(estimators, MODELS[name])(ratings, devices)
        for name in args.models
    }
    titles = {name: model.title for name, model in models.items()}

    scores: dict[str, list[Score]] = {name: [] for name in models}
    runs, cold, protocol = [], [], None
    mf = models.get("mf") if "timestamp" in ratings.data else None
    num_runs = len(seeds) * (5 if args.splits == "u1-u5" else 1)
    with tqdm(
        total=num_runs * len(models) + (mf is not None),
        unit="model",
        disable=args.quiet,
    ) as bar:
        for run in make_runs(ratings, args.splits, seeds, args.data_dir):
            runs.append(run.name)
            cold.append({**run.cold(), "ratings": run.num_cold_ratings()})
            for name, model in models.items():
                doing = f"{run.name}, {model.title}"
                bar.set_postfix_str(doing)

                def tick(epoch: int, doing: str = doing) -> None:
                    at = f"epoch {epoch}" if epoch else "preparing"
                    bar.set_postfix_str(f"{doing}, {at}")

                scores[name].append(score(model, run, tick))
                bar.update()
        if isinstance(mf, estimators.BookMF):
            bar.set_postfix_str("the book's own protocol for its MF")
            protocol = book_protocol(mf, ratings, seeds[0])
            bar.update()

    noun = "seeds" if len(seeds) > 1 else "seed"
    where = f"{ratings.name}, {args.splits} split, {noun} {_span(seeds)}"
    report = "\n\n".join(
        [
            f"{where}:",
            results_table(scores, titles),
            _notes(scores, models, dict(zip(runs, cold))),
            *([_protocol_note(protocol, seeds[0])] if protocol else []),
            _provenance(ratings.name, args, seeds),
        ]
    )
    print(report)
    if args.markdown:
        _write_between_markers(args.markdown, report)
    if args.plot:
        figure = comparison_chart(
            {titles[name]: [s.rmse for s in found] for name, found in scores.items()},
            {titles[name]: [s.curve for s in found] for name, found in scores.items()},
        )
        spreads = ", mean and standard deviation" if num_runs > 1 else ""
        figure.suptitle(f"{where}{spreads}")
        with replacing(args.plot) as file:
            save_figure(figure, file)
    if args.json:
        found = {
            "dataset": ratings.name,
            "splits": args.splits,
            "seeds": seeds,
            "clipped": [name for name in models if name == "autorec-best"],
            "runs": [{"name": n, "cold": c} for n, c in zip(runs, cold)],
            "models": {
                name: {
                    "title": model.title,
                    "cold": model.cold,
                    "scores": [s._asdict() for s in scores[name]],
                }
                for name, model in models.items()
            },
            "book_protocol": protocol,
            "versions": {"python": platform.python_version(), "mxnet": mx.__version__},
        }
        with replacing(args.json) as file:
            file.write_text(json.dumps(found, indent=2, default=_plain) + "\n")


def _notes(
    scores: dict[str, list[Score]],
    models: dict[str, Estimator],
    cold: dict[str, dict[str, Any]],
) -> str:
    """Say what the numbers stand for, and what happened to cold users and items."""
    lines = [
        "RMSE and MAE are pooled over all held-out ratings of a run, mean ± standard "
        f"deviation over the runs. No prediction is clipped to the rating scale"
        f"{', but for those of AutoRec (best)' if 'autorec-best' in scores else ''}. "
        "Seconds are of training alone."
    ]
    if "autorec-early" in scores:
        epochs = ", ".join(str(len(s.curve)) for s in scores["autorec-early"])
        line = (
            f"Stopped early: {epochs} epochs, chosen on a tenth of the training "
            "ratings and then trained again on all of them"
        )
        if "autorec" in scores:
            pairs = list(zip(scores["autorec-early"], scores["autorec"]))
            won = sum(early.rmse < book.rmse for early, book in pairs)
            line += f"; below the book's AutoRec in {won} of {len(pairs)} runs"
        lines.append(line + ".")
    lines.append("Cold in the test part (no training rating), and scored all the same:")
    for run, found in cold.items():
        counted = ", ".join(
            f"{len(found[noun])} {noun}{_named(found[noun])}"
            for noun in ("users", "items")
        )
        lines.append(f"- {run}: {counted}; {found['ratings']} ratings")
    lines.append("What the models predict there:")
    lines += [f"- {model.title}: {model.cold}" for model in models.values()]
    return "\n".join(lines)


def _named(ids: Sequence[Any]) -> str:
    if not ids:
        return ""
    return f" ({', '.join(map(str, ids[:5]))}{', ...' if len(ids) > 5 else ''})"


def _protocol_note(protocol: dict[str, float], seed: int) -> str:
    return (
        "Not comparable with the table: the book trains its MF on the seq-aware split "
        "(each user's newest rating is held out) and prints an average of running "
        f"averages, about 1.05. That protocol gives {protocol['averaged']:.3f} here "
        f"(seed {seed}); the pooled RMSE of the same training is "
        f"{protocol['pooled']:.3f}."
    )


def _provenance(dataset: str, args: argparse.Namespace, seeds: Sequence[int]) -> str:
    """Name the command that prints this again, and the machine."""
    flags = ["--dataset", dataset, "--splits", args.splits]
    flags += ["--seeds", _span(seeds)]
    if args.models != QUICK_MODELS:
        flags += ["--models", ",".join(args.models)]
    return (
        f"`python -m d2l_autorec.compare {shlex.join(flags)}` on {os.cpu_count()} "
        f"CPU cores ({platform.machine()}), Python {platform.python_version()}."
    )


def _span(seeds: Sequence[int]) -> str:
    """Write seeds as `cli.seeds` reads them."""
    first, last = seeds[0], seeds[-1]
    if len(seeds) > 1 and list(seeds) == list(range(first, last + 1)):
        return f"{first}-{last}"
    return ",".join(map(str, seeds))


def _write_between_markers(file: Path, report: str) -> None:
    """Put the report between the file's markers; a new file gets them too."""
    from .files import replacing

    text = file.read_text(encoding="utf-8") if file.exists() else f"{BEGIN}{END}\n"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    with replacing(file) as temporary:
        temporary.write_text(
            f"{before}{BEGIN}\n\n{report}\n\n{END}{after}", encoding="utf-8"
        )


def _plain(value: Any) -> Any:
    """Turn a NumPy number into Python's, for JSON."""
    return value.item()


def _models(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in MODELS]:
        raise argparse.ArgumentTypeError(
            f"{unknown[0]!r} is not one of {', '.join(MODELS)}"
        )
    return names


def _markdown_file(text: str) -> Path:
    file = cli.output_file(text)
    if file.exists():
        _, begin, rest = file.read_text(encoding="utf-8").partition(BEGIN)
        if not begin or END not in rest:
            raise argparse.ArgumentTypeError(
                f"{file} exists and has no lines {BEGIN} and {END} to write between"
            )
    return file


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m d2l_autorec.compare",
        description="Compare AutoRec with simpler models: each is trained on the same "
        "splits with the same seeds, and scored on the same held-out ratings. Without "
        "flags: five random splits of MovieLens 100K, about three minutes on 2 cores.",
    )
    cli.add_data_flags(parser)
    group = parser.add_argument_group("comparison")
    group.add_argument(
        "--models",
        type=_models,
        default=",".join(QUICK_MODELS),
        metavar="LIST",
        help=f"some of {', '.join(MODELS)}",
    )
    group.add_argument(
        "--splits",
        choices=("random", "seq-aware", "u1-u5"),
        default="random",
        help="what is held out: a random tenth, anew for each seed; each user's newest "
        "rating; or the five folds that come with ml-100k, one after the other",
    )
    group.add_argument(
        "--seeds",
        type=cli.seeds,
        metavar="LIST",
        help="such as 0-4 or 0,3,7: of the random splits, and of the models (default: "
        "0-4; with u1-u5, where each seed goes through all folds, 0)",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--plot",
        type=cli.plot_file,
        metavar="FILE",
        help="draw the errors and the learning curves (.png, .svg or .pdf)",
    )
    output.add_argument(
        "--json",
        type=cli.output_file,
        metavar="FILE",
        help="write every score and every learning curve",
    )
    output.add_argument(
        "--markdown",
        type=_markdown_file,
        metavar="FILE",
        help="write the report; into an existing file, between its lines "
        f"{BEGIN} and {END}",
    )
    output.add_argument(
        "--quiet", action="store_true", help="print only the result, no progress"
    )
    return parser


if __name__ == "__main__":
    cli.run(main, os._exit)
