"""Recommend with a trained model: ``python -m d2l_autorec.recommend``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cli

if TYPE_CHECKING:
    from ..serving import Recommendation


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        By default the process's own arguments.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    if args.output and not args.pairs:
        parser.error("--output is for --pairs")
    if args.json and args.pairs:
        parser.error("--pairs writes CSV, not --json")

    # Only now, so that --help and a bad flag need not wait for MXNet.
    from ..ratings import read_table
    from ..serving import load_model, replacing

    model = load_model(args.model)
    unknown = "item-mean" if args.item_mean else "error"
    if args.pairs:
        pairs = read_table(args.pairs, ("user_id", "item_id"))
        for column in pairs:
            pairs[column] = _raw_ids(pairs[column], getattr(model.run, f"{column}s"))
        pairs["rating"] = model.predict(pairs, unknown)
        if args.output:
            with replacing(args.output) as file:
                pairs.to_csv(file, index=False)
        else:
            # As a file is, whatever the terminal's encoding: ids stay what they are.
            sys.stdout.buffer.write(pairs.to_csv(index=False).encode())
        return
    if args.new_user:
        table = read_table(
            args.new_user, ("item_id", "rating"), rating_offset=model.run.rating_offset
        )
        items = _raw_ids(table["item_id"], model.run.item_ids)
        given = zip(items, table["rating"] - model.run.rating_offset)
        best = model.recommend_new(given, args.n, args.include_rated)
        whom = f"the new user of {args.new_user}"
    else:
        user_id = _raw_ids([args.user], model.run.user_ids)[0]
        best = model.recommend(user_id, args.n, args.include_rated, unknown)
        whom = f"user {args.user}"
    if args.json:
        print(json.dumps([item._asdict() for item in best], indent=2))
    else:
        print(f"items for {whom} ({model.run.name}), by predicted rating")
        print(_table(best))


def _raw_ids(texts: Iterable[Any], ids: Any) -> list[Any]:
    """Find ids by how they are written; an unknown one stays what it is."""
    written = {str(raw_id): raw_id for raw_id in ids.tolist()}
    return [written.get(str(text), text) for text in texts]


def _table(best: Sequence[Recommendation]) -> str:
    lines = (
        f"{place:3}. {item.rating:5.2f}  {item.item_id}"
        + (f"  {item.title}" if item.title else "")
        for place, item in enumerate(best, 1)
    )
    return "\n".join(lines)


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m d2l_autorec.recommend",
        description="Recommend items, or predict ratings, with a model that "
        "`python -m d2l_autorec.train --save DIR` has kept.",
    )
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the model",
    )
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument(
        "--user", metavar="ID", help="recommend the user's best unrated items"
    )
    asked.add_argument(
        "--new-user",
        metavar="FILE",
        help="recommend to someone who was not in the training: a file of their "
        "ratings, item,rating a line",
    )
    asked.add_argument(
        "--pairs",
        metavar="FILE",
        help="predict the ratings of pairs, user,item a line, and write them as CSV",
    )
    parser.add_argument(
        "-n",
        type=cli.positive_int,
        default=10,
        metavar="N",
        help="how many items to recommend",
    )
    parser.add_argument(
        "--include-rated",
        action="store_true",
        help="recommend items too that the user has rated",
    )
    parser.add_argument(
        "--item-mean",
        action="store_true",
        help="for a user or an item without a training rating, take the item's mean "
        "rating (the mean of all, if the item is unknown) instead of an error",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the recommendations as JSON"
    )
    parser.add_argument(
        "--output",
        type=cli.output_file,
        metavar="FILE",
        help="where --pairs writes its CSV (default: the terminal)",
    )
    return parser
