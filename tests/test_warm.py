"""A training that begins with an older model's weights."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from test_checkpoint import CPU, make_run, train

from d2l_autorec.errors import ModelError
from d2l_autorec.serving import Checkpoint, warm_start
from d2l_autorec.training import Blend, Parts, Training


def without_first(parts, noun):
    """Leave the first user, or item, and the test part."""
    axis = "item", "user"
    cut = tuple(slice(noun == one, None) for one in axis)
    ids = {f"{n}_ids": getattr(parts, f"{n}_ids")[c] for n, c in zip(axis, cut)}
    return Parts(parts.train_mat[cut].tocsr(), rating_offset=2.0, **ids)


@pytest.mark.parametrize(("kind", "noun"), [("item", "user"), ("user", "item")])
@pytest.mark.parametrize("num_hidden", [3, (4, 3)], ids=str)
def test_known_ones_keep_their_weights(tmp_path, kind, noun, num_hidden):
    run = make_run(num_epochs=3, kind=kind, num_hidden=num_hidden)
    train(tmp_path, replace(run, parts=without_first(run.parts, noun)))
    old = Checkpoint.open(tmp_path)
    training = Training(run, CPU)
    drawn = training.parameters()
    said = warm_start(training, old)
    size = len(getattr(run.parts, f"{noun}_ids"))
    assert f"{size - 1} of {size} {noun}s have their weights from there, 1 are" in said
    found = training.parameters()
    for name, array in old.parameters().items():
        ours, theirs, first = found[name], array, drawn[name]
        if name == "encoder.weight":
            ours, theirs, first = ours.T, theirs.T, first.T
        if len(ours) > len(theirs):
            np.testing.assert_array_equal(ours[1:], theirs)
            np.testing.assert_allclose(ours[0], first[0] + theirs.mean(0), rtol=1e-5)
        else:
            np.testing.assert_array_equal(ours, theirs)
    assert next(training.epochs()).train_loss > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda recipe: recipe.changed(num_hidden=5), "its num_hidden is 3, not 5"),
        (lambda recipe: recipe.changed(kind="user"), "its kind is item, not user"),
        (lambda recipe: Blend((recipe, recipe)), "no blend"),
    ],
)
def test_another_network_is_refused(tmp_path, change, said):
    run = make_run()
    train(tmp_path, run)
    other = Training(replace(run, recipe=change(run.recipe)), CPU)
    with pytest.raises(ModelError, match=said):
        warm_start(other, Checkpoint.open(tmp_path))


@pytest.fixture
def yesterday(small_data, tmp_path, command):
    """Ratings, and a model of all but some users."""
    log = small_data / "ml-100k" / "u.data"
    rows = log.read_text().splitlines()
    (tmp_path / "old.tsv").write_text(
        "\n".join(row for row in rows if not row.startswith("7\t"))
    )
    flags = ["--kind", "item", "-k", "5", "--num-epochs", "40", "--lr", "0.02"]
    trained = command(
        *("train", "--ratings", tmp_path / "old.tsv", "--save", tmp_path / "old"),
        *(*flags, "--quiet", "--test-ratio", "0"),
    )
    assert trained[0] == 0
    return log, tmp_path / "old"


def test_the_command_begins_where_the_old_model_ended(yesterday, tmp_path, command):
    log, old = yesterday
    result, folder = tmp_path / "r.json", tmp_path / "new"
    flags = ["--ratings", log, "--save", folder, "--json", result, "--quiet"]
    warm = ["--warm-start", old, "--num-epochs", "1"]
    code, out, _ = command("train", *flags, *warm)
    assert code == 0
    assert f"warm start from {old}: 29 of 30 users" in out
    found = json.loads(result.read_text())
    recipe = Checkpoint.open(old).run.recipe
    assert found["recipe"] == asdict(recipe.changed(num_epochs=1))
    *_, last = Checkpoint.open(old).history
    assert found["history"][0]["train_loss"] < 2 * last.train_loss


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--preset", "paper"], 2, "--warm-start and --preset exclude each other"),
        (["--resume", "x"], 2, "--resume takes these from the model folder"),
        (["-k", "6"], 1, "its num_hidden is 5, not 6"),
        (["--workers", "2"], 2, "exclude each other"),
    ],
)
def test_flags_that_do_not_go_with_it_are_one_line(
    yesterday, command, flags, code, said
):
    log, old = yesterday
    ratings = [] if "--resume" in flags else ["--ratings", log]
    found, _, err = command("train", *ratings, "--warm-start", old, *flags, "--quiet")
    assert found == code
    assert said in err
