"""Recommend with a trained model: ``python -m d2l_autorec.recommend``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import cli
from .checks import LISTS, TABLES
from .cli import flag
from .process import show_notes
from .results import as_json

if TYPE_CHECKING:
    import pandas as pd

    from ..serving import Predictor, Recommendation, Similar

_log = logging.getLogger(__name__)
# The columns of the files that questions may be asked by.
_COLUMNS = {
    "pairs": ("user_id", "item_id"),
    "users": ("user_id",),
    "new_user": ("item_id", "rating"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command, by default with the process's own arguments."""
    args = make_parser().parse_flags(argv)
    (asked,) = args.given.intersection((*TABLES, *LISTS))
    show_notes(quiet=True)

    # Only now, so that --help and a bad flag need not wait for MXNet.
    from ..serving import load_model, save_tables, write_csv

    model = load_model(args.model)
    if args.titles:
        _add_titles(args, model)
    if asked in LISTS:
        title, best = _list(args, model)
        if args.json:
            print(as_json([item._asdict() for item in best]))
        else:
            print(title, _listed(best), sep="\n")
        return
    tables = _clipped(_tables(args, model), model)
    if args.output:
        save_tables(tables, args.output)
    else:
        # As a file is, whatever the terminal's encoding: ids stay what they are.
        write_csv(tables, sys.stdout.buffer)


def _add_titles(args: argparse.Namespace, model: Predictor) -> None:
    """Read titles of the items, which come beside those of the model."""
    from ..ratings import read_titles

    parts = model.run.parts
    ids = parts.item_ids.tolist()
    titles = read_titles(args.titles, ids, args.encoding, args.title_columns)
    parts = replace(parts, titles={**parts.titles, **titles})
    model.run = replace(model.run, parts=parts)


def _list(
    args: argparse.Namespace, model: Predictor
) -> tuple[str, Sequence[Recommendation | Similar]]:
    """Answer a question whose answer is a list: what is above it, and its items."""
    n, least = args.n, args.min_ratings or 1
    run: Any = model.run  # of ratings, or of lists
    order = "predicted rating" if is_rated(model) else f"the {run.model.name} model"
    if args.like:
        item_id = _raw_ids([args.like], run.parts.item_ids)[0]
        named = run.parts.titles.get(item_id, f"item {args.like}")
        measure = "the cosine of their hidden layers"
        if not is_rated(model):
            measure = f"the cosine of their weights in the {run.model.name} model"
        elif any(recipe.residual for recipe in run.recipe.recipes):
            _log.warning(
                "similar items of a network of residuals are not reliable: it learns "
                "what biases leave over, which is little for most items; train "
                "--feedback implicit --preset ease for better ones"
            )
        title = f"items like {named} ({run.parts.name}), by {measure}"
        return title, model.similar(item_id, n, least)
    if args.new_user:
        table = _read(args, model)
        given: Any = table["item_id"].tolist()
        if is_rated(model):
            given = zip(given, table["rating"])
        best = model.recommend_new(given, n, args.include_rated, least)
        whom = f"the new user of {args.new_user}"
    else:
        user_id = _raw_ids([args.user], run.parts.user_ids)[0]
        best = model.recommend(user_id, n, args.include_rated, _unknown(args), least)
        whom = f"user {args.user}"
    title = f"items for {whom} ({run.parts.name}), by {order}"
    return title, held_to_scale(best, model)


def is_rated(model: Predictor) -> bool:
    """Tell whether a model's lists have predicted ratings, which have a scale."""
    return "rating" in model.recommendation._fields


def held_to_scale(best: Iterable[Any], model: Predictor) -> list[Any]:
    """Clip predicted ratings to the scale of the data; the order is from before."""
    if not is_rated(model):
        return list(best)
    low, high = model.run.parts.rating_range
    return [item._replace(rating=min(max(item.rating, low), high)) for item in best]


def _tables(args: argparse.Namespace, model: Predictor) -> Iterator[pd.DataFrame]:
    """Answer a question whose answer is a table, or several of them."""
    from tqdm import tqdm

    from ..serving import recommend_all

    value = model.recommendation._fields[1]
    if args.pairs:
        pairs = _read(args, model)
        pairs[value] = model.predict(pairs, _unknown(args))
        yield pairs
        return
    users = _read(args, model)["user_id"].tolist() if args.users else None
    how = args.n, args.include_rated, _unknown(args), args.min_ratings or 1
    total = len(model.run.parts.user_ids if users is None else users)
    with tqdm(total=total, unit="user") as bar:
        for table in recommend_all(model, users, *how):
            yield table
            bar.update(table["user_id"].nunique())
        bar.update(total - bar.n)  # those for whom no item is left


def _clipped(tables: Iterable[pd.DataFrame], model: Predictor) -> Iterator[Any]:
    """Clip predicted ratings to the scale of the data."""
    for table in tables:
        if is_rated(model):
            table["rating"] = table["rating"].clip(*model.run.parts.rating_range)
        yield table


def _unknown(args: argparse.Namespace) -> str:
    return "item-mean" if args.item_mean else "error"


def _read(args: argparse.Namespace, model: Predictor) -> pd.DataFrame:
    """Read the file that a question is asked by, its ids as the model has them."""
    import pandas as pd

    from ..ratings import read_table

    asked = next(name for name in _COLUMNS if getattr(args, name))
    rated = is_rated(model)
    names = tuple(name for name in _COLUMNS[asked] if rated or name != "rating")
    layout = {"columns": args.columns, "encoding": args.encoding}
    table: Any = read_table(getattr(args, asked), names, **layout)
    for column in table.keys() & {"user_id", "item_id"}:
        table[column] = _raw_ids(table[column], getattr(model.run.parts, f"{column}s"))
    return pd.DataFrame(table)


def _raw_ids(texts: Iterable[Any], ids: Any) -> list[Any]:
    """Find ids by how they are written; an unknown one stays what it is."""
    written = {str(raw_id): raw_id for raw_id in ids.tolist()}
    return [written.get(str(text), text) for text in texts]


def _listed(best: Sequence[Recommendation | Similar]) -> str:
    lines = (
        f"{place:3}. {value:5.2f}  {item_id}" + (f"  {title}" if title else "")
        for place, (item_id, value, title) in enumerate(best, 1)
    )
    return "\n".join(lines)


QUESTIONS = {
    "--user": flag("recommend the user's best unrated items", "ID"),
    "--users": flag("the same for these users, one a line", "FILE"),
    "--all-users": flag("the same for all users of the model"),
    "--new-user": flag(
        "recommend to someone who was not in the training: a file of their ratings, "
        "item,rating a line; for a model of lists one of their items, an item a line",
        "FILE",
    ),
    "--like": flag(
        "list the items that are most like this one to the network, with the cosine of "
        "their hidden layers",
        "ITEM",
    ),
    "--pairs": flag(
        "predict the ratings of pairs, user,item a line (by a model of lists: scores, "
        "which compare within a user)",
        "FILE",
    ),
}
ANSWERS = {
    "-n": flag("how many items to recommend", cli.positive_int, 10),
    "--include-rated": flag("also recommend items that the user has rated"),
    "--item-mean": flag(
        "for a user or an item without a training rating, take the item's mean rating "
        "(the mean of all, if the item is unknown) instead of an error; a model of "
        "lists gives such a user the most popular items"
    ),
    "--min-ratings": flag(
        "leave out items with fewer training ratings (default: 1)", cli.positive_int
    ),
    "--columns": flag(
        "names or positions (from 1) of the columns of the file: user,item of --pairs, "
        "user of --users, item,rating of --new-user (default: a guess)",
        cli.words,
    ),
    "--json": flag("print a list of items as JSON"),
    "--output": flag(
        "where --pairs, --users and --all-users write to, as Parquet if it ends in "
        ".parquet, else as CSV (default: the terminal)",
        cli.output_file,
    ),
}


def make_parser() -> cli.Parser:
    """Make the parser of the flags."""
    return cli.Parser(
        prog="python -m d2l_autorec.recommend",
        description="Recommend items, or predict ratings, with a model that "
        "`python -m d2l_autorec.train --save DIR` has saved.",
        groups={
            "model": cli.MODEL,
            cli.ONE_OF: QUESTIONS,
            "answer": {**ANSWERS, **cli.TITLES, **cli.ENCODING},
        },
    )
