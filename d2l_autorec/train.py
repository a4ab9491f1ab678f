"""Train AutoRec: ``python -m d2l_autorec.train``."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence

from . import cli

BOOK = "the book prints train loss 0.000, test RMSE 0.898"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        By default the process's own arguments.
    """
    parser = _parser()
    args = parser.parse_args(argv)

    # Only now, so that --help and a bad flag need not wait for MXNet.
    from ._mxnet import mx
    from .data import split_data_ml100k
    from .files import replacing
    from .loop import closing_lines, parse_devices, seed_everything
    from .plots import learning_curve, save_figure, watch
    from .recipe import Recipe

    if args.optimizer.lower() not in mx.optimizer.Optimizer.opt_registry:
        known = ", ".join(sorted(mx.optimizer.Optimizer.opt_registry))
        parser.error(f"argument --optimizer: {args.optimizer!r} is not one of {known}")
    devices = parse_devices(args.devices)
    ratings = cli.load_ratings(args.dataset, args.data_dir)
    if not args.quiet:
        print(ratings.summary())

    seed_everything(args.seed)
    parts = split_data_ml100k(
        ratings.data,
        ratings.num_users,
        ratings.num_items,
        args.split_mode,
        args.test_ratio,
    )
    train_mat, test_mat = (ratings.matrix(part) for part in parts)
    settings = {name: getattr(args, name) for name in Recipe.__dataclass_fields__}
    recipe = Recipe(**settings)
    if not args.quiet:
        print(f"{args.split_mode} split, seed {args.seed}: ", end="")
        print(f"{train_mat.nnz:,} ratings to train on, {test_mat.nnz:,} to test on")
    epochs = recipe.train(train_mat, test_mat, devices, args.seed).epochs
    history = list(epochs if args.quiet else watch(epochs, recipe.num_epochs))

    by_the_book = (
        ratings.name == "ml-100k" and args.split_mode == "random" and recipe == Recipe()
    )
    beside = BOOK if by_the_book else f"{ratings.name}: {cli.NOT_COMPARABLE}"
    print(closing_lines(history, devices))
    print(f"({beside})")
    if args.plot:
        figure = learning_curve(history)
        figure.suptitle(f"AutoRec on {ratings.name}, seed {args.seed} ({beside})")
        with replacing(args.plot) as file:
            save_figure(figure, file)
    if args.json:
        report = {
            "dataset": ratings.name,
            "num_users": ratings.num_users,
            "num_items": ratings.num_items,
            "num_train_ratings": train_mat.nnz,
            "num_test_ratings": test_mat.nnz,
            "split_mode": args.split_mode,
            "test_ratio": args.test_ratio,
            "seed": args.seed,
            "recipe": settings,
            "devices": [str(device) for device in devices],
            "train_loss": history[-1].train_loss,
            "test_rmse": history[-1].test_rmse,
            "note": beside,
            "history": [epoch._asdict() for epoch in history],
            "versions": {"python": platform.python_version(), "mxnet": mx.__version__},
        }
        with replacing(args.json) as file:
            file.write_text(json.dumps(report, indent=2) + "\n")


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m d2l_autorec.train",
        description="Train AutoRec on rating data and score it on held-out ratings. "
        "Without flags: the book's recipe on MovieLens 100K.",
    )
    cli.add_data_flags(parser)
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
        "--seed",
        type=cli.seed,
        default=0,
        metavar="N",
        help="of the split, the initial weights, the order and the dropout",
    )
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument(
        "--num-hidden",
        "-k",
        type=cli.positive_int,
        default=500,
        metavar="N",
        help="units of the hidden layer",
    )
    recipe.add_argument(
        "--dropout",
        type=cli.dropout,
        default=0.05,
        metavar="P",
        help="share of the hidden units that training drops",
    )
    recipe.add_argument(
        "--optimizer", default="adam", metavar="NAME", help="an MXNet optimizer"
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
        "--wd",
        "-w",
        type=cli.non_negative_float,
        default=1e-5,
        metavar="X",
        help="weight decay",
    )
    recipe.add_argument(
        "--num-epochs",
        "-e",
        type=cli.positive_int,
        default=25,
        metavar="N",
        help="passes over the training ratings",
    )
    recipe.add_argument(
        "--batch-size",
        "-b",
        type=cli.positive_int,
        default=256,
        metavar="N",
        help="items a mini-batch",
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
    cli.run(main)
