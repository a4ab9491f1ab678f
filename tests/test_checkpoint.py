"""A model folder: it comes back as it was saved, or says what is wrong with it."""

import contextlib
import dataclasses
import json
import os
import pickle
import resource
import shutil
import signal
import socket
from itertools import islice

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from d2l_autorec._mxnet import mx
from d2l_autorec.curve import Epoch, best_epoch
from d2l_autorec.errors import ModelError
from d2l_autorec.ratings import ratings_from_frame
from d2l_autorec.serving import Checkpoint, load_model
from d2l_autorec.training import Parts, Recipe, Run, Training

CPU = [mx.cpu()]


def make_run(num_epochs=2, valid=False, patience=None, **recipe):
    """Ratings of 12 users and 9 items, their ids strings that look like numbers."""
    rng = np.random.default_rng(0)
    cells = rng.permutation(12 * 9)[:80]
    data = pd.DataFrame(
        {
            "user_id": [f"{cell % 12:03}" for cell in cells],
            "item_id": cells // 12 + 100,
            "rating": rng.integers(1, 6, 80).astype(float),
        }
    )
    titles = {100: "The Hundred", 101: "Zürich"}
    ratings = ratings_from_frame(data, name="toy")
    ratings = dataclasses.replace(ratings, titles=titles, rating_offset=2.0)
    split = {"split_mode": "random"}
    rows = np.arange(80)
    parts = rows[:60], rows[60:70], rows[70:] if valid else None
    recipe = {"num_hidden": 3, "batch_size": 4, "num_epochs": num_epochs, **recipe}
    return Run(Parts.of(ratings, *parts, split), Recipe(**recipe), 7, patience)


def train(directory, run, overwrite=False):
    checkpoint = Checkpoint(directory, run, overwrite)
    training = Training.of(run, CPU)
    return list(checkpoint.saving(training, training.epochs())), training.net


def parameters(net):
    return {k: v.data().asnumpy() for k, v in net._collect_params_with_prefix().items()}


def content(directory):
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def same(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(one[key], other[key]) for key in one
    )


def test_what_is_saved_comes_back(tmp_path):
    run = make_run(valid=True)
    history, net = train(tmp_path / "new" / "m", run)
    opened = Checkpoint.open(tmp_path / "new" / "m")
    assert opened.history == history
    parts = opened.run.parts
    for name in ("train_mat", "test_mat", "valid_mat"):
        assert (getattr(parts, name) != getattr(run.parts, name)).nnz == 0
    for name in ("user_ids", "item_ids"):
        assert getattr(parts, name).tolist() == getattr(run.parts, name).tolist()
    assert parts.titles == {100: "The Hundred", 101: "Zürich"}
    assert parts.rating_offset == 2.0
    assert (opened.run.recipe, opened.run.seed) == (run.recipe, 7)
    assert parts.split == {"split_mode": "random"}


def test_arrays_of_several_pieces_come_back_and_others_can_read_them(tmp_path):
    _, net = train(tmp_path, make_run(num_epochs=1, num_hidden=(1100, 1100)))
    (file,) = tmp_path.glob("weights-*")  # 4 MiB are written, and checked, at a time
    found = Checkpoint.open(tmp_path).parameters()
    assert found["deeper.0.weight"].nbytes > 2**22
    assert same(found, parameters(net)) and same(load_file(file), found)


def test_the_best_epoch_on_validation_is_kept(tmp_path):
    run = make_run(num_epochs=12, valid=True, lr=0.1)
    checkpoint, states = Checkpoint(tmp_path, run), []
    training = Training.of(run, CPU)
    history = []
    for epoch in checkpoint.saving(training, training.epochs()):
        states.append(parameters(training.net))
        history.append(epoch)
    best = min(history, key=lambda epoch: epoch.valid_rmse)
    assert best.epoch < len(history), "the toy has to overfit for this test"
    assert best_epoch(history) == best
    kept = parameters(Checkpoint.open(tmp_path).network(CPU))
    assert same(kept, states[best.epoch - 1])
    assert not same(kept, states[-1])


@pytest.mark.parametrize(
    "valid, best",
    [((0.9, 0.8), 2), ((None, None), 2), ((0.1, 0.2, None), 1), ((None, 0.2, 0.3), 2)],
)
def test_the_best_epoch_is_that_of_the_validation_part_or_the_last(valid, best):
    history = [
        Epoch(number, 1.0, number / 9, rmse, 1.0, 1)
        for number, rmse in enumerate(valid, 1)
    ]
    assert best_epoch(history).epoch == best


@pytest.mark.parametrize("ids", [["1", "01", "x"], [1, 2, 2**62], ["é", "\U0001f600"]])
def test_ids_come_back_with_their_types(tmp_path, ids):
    data = pd.DataFrame(
        {"user_id": ids, "item_id": ids, "rating": np.ones(len(ids))}
    ).astype({"user_id": np.array(ids).dtype.kind == "i" and np.int64 or object})
    ratings, rows = ratings_from_frame(data), np.arange(len(ids))
    train(tmp_path, Run(Parts.of(ratings, rows, rows), Recipe(2, num_epochs=1), 0))
    opened = Checkpoint.open(tmp_path).run.parts
    assert opened.user_ids.tolist() == sorted(ids)
    assert [type(raw_id) for raw_id in opened.user_ids.tolist()] == [
        type(raw_id) for raw_id in ids
    ]


def test_old_files_go_and_files_of_others_stay(tmp_path):
    train(tmp_path, make_run())
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "weights-0123456789abcdef.safetensors").write_bytes(b"of a killed run")
    (tmp_path / ".saving").write_bytes(b"of a killed run")
    train(tmp_path, make_run(), overwrite=True)
    names = sorted(file.name.partition("-")[0] for file in tmp_path.iterdir())
    assert names == [
        *("ids", "model.json", "notes.txt", "optimizer", "ratings", "weights")
    ]


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ModelError, match="holds thesis.tex and no model"):
        Checkpoint(tmp_path, make_run())


def test_two_trainings_do_not_save_to_one_folder(tmp_path):
    training = Training.of(make_run(), CPU)
    first = Checkpoint(tmp_path, make_run()).saving(training, training.epochs())
    next(first)
    with pytest.raises(ModelError, match="another training is saving"):
        train(tmp_path, make_run(), overwrite=True)
    first.close()
    train(tmp_path, make_run(), overwrite=True)


def begin(directory, **recipe):
    """A training whose first epoch is saved, and whose others are as they pass by."""
    run = make_run(**{"num_epochs": 3, **recipe})
    training = Training.of(run, CPU)
    saving = Checkpoint(directory, run).saving(training, training.epochs())
    next(saving)
    return saving


def test_a_folder_that_was_moved_is_found_again(tmp_path):
    saving = begin(tmp_path / "m")
    (tmp_path / "m").rename(tmp_path / "moved")
    second = begin(tmp_path / "m", lr=0.1)  # in a folder of that name
    (tmp_path / "m" / ".saving").write_bytes(b"of the second one")
    before = content(tmp_path / "m")
    said = f"m: was moved to {tmp_path}/moved during .*--resume {tmp_path}/moved"
    with pytest.raises(ModelError, match=said):
        next(saving)
    assert content(tmp_path / "m") == before
    assert len(Checkpoint.open(tmp_path / "moved").history) == 1
    next(second)
    assert len(Checkpoint.open(tmp_path / "m").history) == 2


@pytest.mark.parametrize("there", [True, False], ids=["another", "none"])
def test_a_folder_that_was_removed_is_not_made_again(tmp_path, there):
    saving = begin(tmp_path / "m")
    shutil.rmtree(tmp_path / "m")
    if there:
        (tmp_path / "m").mkdir()
    with pytest.raises(ModelError, match="m: was moved or removed during the training"):
        next(saving)
    assert (tmp_path / "m").exists() == there and not [*tmp_path.glob("m/*")]


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("kind", ["optimizer", "weights"])
def test_a_model_is_read_while_a_training_saves_to_it(
    tmp_path, monkeypatch, kind, times
):
    saving = begin(tmp_path, num_epochs=2 * times + 1)
    opening, left = os.open, times

    def save_first(file, *args):
        nonlocal left
        if left and str(file).startswith(f"{tmp_path}/{kind}-"):
            left -= 1
            with monkeypatch.context() as patched:
                patched.setattr(os, "open", opening)
                assert len(list(islice(saving, 2))) == 2  # the second removes the file
        return opening(file, *args)

    monkeypatch.setattr(os, "open", save_first)
    load_model(tmp_path)
    assert not left


@pytest.mark.parametrize("kind", ["ids", "ratings"])
def test_a_file_that_was_removed_is_written_again(tmp_path, kind):
    saving = begin(tmp_path)
    before = content(tmp_path)
    for file in tmp_path.glob(f"{kind}-*"):
        file.unlink()
    next(saving)
    (name,) = (name for name in before if name.startswith(kind))
    assert (tmp_path / name).read_bytes() == before[name]
    assert len(Checkpoint.open(tmp_path).history) == 2


def test_it_is_said_if_the_best_epochs_parameters_were_removed(tmp_path):
    run = make_run(num_epochs=12, valid=True, lr=0.1)
    best = best_epoch(train(tmp_path / "whole", run)[0]).epoch
    training = Training.of(run, CPU)
    saving = Checkpoint(tmp_path / "m", run).saving(training, training.epochs())
    list(islice(saving, best + 1))
    files = json.loads((tmp_path / "m" / "model.json").read_text())["files"]
    name = f"weights-{files['best'][:16]}.safetensors"
    (tmp_path / "m" / name).unlink()
    with pytest.raises(ModelError, match=f"{name}: was removed"):
        next(saving)


def test_a_model_is_replaced_only_if_asked_for(tmp_path):
    train(tmp_path, make_run())
    before = content(tmp_path)
    with pytest.raises(ModelError, match=r"holds a model; .*--resume .*--overwrite"):
        Checkpoint(tmp_path, make_run(lr=0.1))
    assert content(tmp_path) == before
    train(tmp_path, make_run(lr=0.1), overwrite=True)
    assert Checkpoint.open(tmp_path).run.recipe.lr == 0.1


def test_no_file_is_a_pickle(tmp_path):
    train(tmp_path, make_run())
    for name, raw in content(tmp_path).items():
        with pytest.raises(Exception):  # noqa: B017
            pickle.loads(raw)
        assert b"pickle" not in raw, name
        if name.endswith(".safetensors"):
            assert load_file(tmp_path / name)


def test_any_changed_byte_is_refused(tmp_path):
    train(tmp_path, make_run(num_epochs=1, valid=True))
    rng = np.random.default_rng(0)
    for name, raw in content(tmp_path).items():
        places = rng.choice(len(raw), 300 if name == "model.json" else 20, False)
        flipped = (
            raw[:place] + bytes([raw[place] ^ rng.integers(1, 256)]) + raw[place + 1 :]
            for place in places
        )
        for changed in (raw[:-1], raw + b"\n", *flipped):
            (tmp_path / name).write_bytes(changed)
            with pytest.raises(ModelError) as caught:
                Checkpoint.open(tmp_path)
            assert "\n" not in str(caught.value)
        (tmp_path / name).write_bytes(raw)
    Checkpoint.open(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    train(tmp_path, make_run())
    for name, raw in content(tmp_path).items():
        (tmp_path / name).unlink()
        with pytest.raises(
            ModelError,
            match="holds no model" if name == "model.json" else f"{name}: is missing",
        ):
            Checkpoint.open(tmp_path)
        (tmp_path / name).write_bytes(raw)


def make_socket(name):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(name)


ODD = {
    "folder": os.mkdir,
    "loop": lambda name: os.symlink(name, name),
    "socket": make_socket,
    "pipe": os.mkfifo,
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_what_is_no_file_is_named(tmp_path, monkeypatch, make):
    train(tmp_path / "m", make_run(num_epochs=1))
    for name in content(tmp_path / "m"):
        directory = shutil.copytree(tmp_path / "m", tmp_path / f"m-{name}")
        monkeypatch.chdir(directory)
        os.unlink(name)
        make(name)
        with pytest.raises(ModelError, match=f"{name}: (cannot be read|is no regular)"):
            load_model(directory)


def test_no_folder_and_a_file_are_no_model(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(ModelError, match="holds no model"):
            Checkpoint.open(place)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("version", [1, 3, "x"])
def test_another_format_is_named(tmp_path, version):
    train(tmp_path, make_run())
    file = tmp_path / "model.json"
    manifest = json.loads(file.read_text())
    manifest["format"] = version
    manifest["versions"]["d2l_autorec"] = "0.0.7"
    file.write_text(json.dumps(manifest))
    said = f"is in format {version!r}, written by d2l_autorec 0.0.7; .* reads format 2"
    with pytest.raises(ModelError, match=said):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", "[" * 100_000, '{"format": 2}'])
def test_a_manifest_that_is_none(tmp_path, text):
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ModelError, match="model.json: is damaged"):
        Checkpoint.open(tmp_path)


def test_parameters_of_other_shapes_are_refused(tmp_path):
    train(tmp_path, make_run())
    checkpoint = Checkpoint.open(tmp_path)
    checkpoint.run = make_run(dropout=0.5)
    checkpoint.network(CPU)
    object.__setattr__(checkpoint.run, "recipe", Recipe(num_hidden=4))
    with pytest.raises(ModelError, match="does not fit"):
        checkpoint.network(CPU)
    with pytest.raises(ModelError, match="does not fit"):
        checkpoint.restore(Training.of(checkpoint.run, CPU, 2))


@contextlib.contextmanager
def room_for_files_of(size):
    """Stand in for a disk that gets full in the middle of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_old_model(tmp_path):
    train(tmp_path, make_run())
    before = content(tmp_path)
    run = make_run(lr=0.1)
    training = Training.of(run, CPU)
    epoch = next(training.epochs())
    arrays = training.parameters(), training.state()
    largest = max(map(len, before.values()))
    sizes = {size for raw in before.values() for size in (len(raw) - 1, len(raw) // 2)}
    for size in sorted({*sizes, *range(0, largest, 500)}):
        if size < largest - 100:
            with room_for_files_of(size), pytest.raises(OSError, match=str(tmp_path)):
                Checkpoint(tmp_path, run, overwrite=True).save(epoch, *arrays)
            assert before.items() <= content(tmp_path).items()
            assert not (tmp_path / ".saving").exists()
    assert Checkpoint.open(tmp_path).run.recipe.lr == 0.002
    Checkpoint(tmp_path, run, overwrite=True).save(epoch, *arrays)
    assert Checkpoint.open(tmp_path).run.recipe.lr == 0.1


class Killed(BaseException):
    """Stands in for a kill: nothing after it is done, not even the tidying up."""


def test_a_kill_between_any_two_steps_leaves_a_whole_model(tmp_path, monkeypatch):
    """Stop a save at each of its calls to the system."""
    names = ("replace", "fsync", "unlink", "open")
    calls = stop = 0

    def counted(system):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls >= stop:
                raise Killed
            return system(*args, **kwargs)

        return call

    old, new = make_run(), make_run(lr=0.1)
    training = Training.of(new, CPU)
    epoch = next(training.epochs())
    arrays = training.parameters(), training.state()
    seen = set()
    train(tmp_path / "old", old)
    for stop in range(100):  # noqa: B007
        shutil.rmtree(tmp_path / "m", ignore_errors=True)
        shutil.copytree(tmp_path / "old", tmp_path / "m")
        calls = 0
        with monkeypatch.context() as patched:
            for name in names:
                patched.setattr(os, name, counted(getattr(os, name)))
            try:
                Checkpoint(tmp_path / "m", new, True).save(epoch, *arrays)
                finished = True
            except Killed:
                finished = False
        opened = Checkpoint.open(tmp_path / "m")
        opened.network(CPU)
        seen.add(opened.run.recipe.lr)
        if finished:
            assert opened.run.recipe.lr == 0.1
            break
    assert finished and stop > 10
    assert seen == {0.002, 0.1}
