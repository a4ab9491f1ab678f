"""A model folder: it comes back as it was saved, or says what is wrong with it."""

import contextlib
import dataclasses
import os
import resource
import shutil
import signal
import socket

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from d2l_autorec._mxnet import mx
from d2l_autorec.curve import best_epoch
from d2l_autorec.errors import ModelError
from d2l_autorec.ratings import ratings_from_frame
from d2l_autorec.serving import MODEL_FILE, Checkpoint, load_model, lock
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
    training = Training(run, CPU)
    return list(saving(checkpoint, training)), training.net


def saving(checkpoint, training):
    """Train and save, under the lock; yield each epoch when it is on disk."""
    with lock(checkpoint.directory) as checkpoint.locked:
        for epoch in training.epochs():
            checkpoint.save(epoch, training.parameters(), training.state())
            yield epoch
    checkpoint.locked = None


def parameters(net):
    return {k: v.data().asnumpy() for k, v in net._collect_params_with_prefix().items()}


def content(directory):
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def same(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(one[key], other[key]) for key in one
    )


@pytest.mark.parametrize("ids", [["1", "01", "x"], [1, 2, 2**62], ["é", "\U0001f600"]])
def test_ids_come_back_with_their_types(tmp_path, ids):
    data = pd.DataFrame({"user_id": ids, "item_id": ids, "rating": 1.0})
    ratings, rows = ratings_from_frame(data), np.arange(len(ids))
    train(tmp_path, Run(Parts.of(ratings, rows, rows), Recipe(2, num_epochs=1), 0))
    found = Checkpoint.open(tmp_path).run.parts.user_ids.tolist()
    assert found == sorted(ids) and {type(one) for one in found} == {type(ids[0])}


def test_what_is_saved_comes_back(tmp_path):
    run = make_run(valid=True)
    history, _ = train(tmp_path / "new" / "m", run)
    opened = Checkpoint.open(tmp_path / "new" / "m")
    assert opened.history == history
    assert (opened.run.recipe, opened.run.seed) == (run.recipe, 7)
    parts = opened.run.parts
    for name in ("train_mat", "test_mat", "valid_mat"):
        assert (getattr(parts, name) != getattr(run.parts, name)).nnz == 0
    assert parts.titles == {100: "The Hundred", 101: "Zürich"}
    assert (parts.rating_offset, parts.split) == (2.0, {"split_mode": "random"})


def test_arrays_of_several_pieces_come_back_and_others_can_read_them(tmp_path):
    _, net = train(tmp_path, make_run(num_epochs=1, num_hidden=(1100, 1100)))
    found = Checkpoint.open(tmp_path).parameters()
    assert found["deeper.0.weight"].nbytes > 2**22  # what is written at a time
    assert same(found, parameters(net))
    arrays = load_file(tmp_path / MODEL_FILE)
    assert same({name: arrays[f"last.{name}"] for name in found}, found)


def test_the_best_epoch_on_validation_is_kept(tmp_path):
    run = make_run(num_epochs=12, valid=True, lr=0.1)
    checkpoint, states = Checkpoint(tmp_path, run), []
    training = Training(run, CPU)
    history = []
    for epoch in saving(checkpoint, training):
        states.append(parameters(training.net))
        history.append(epoch)
    best = min(history, key=lambda epoch: epoch.valid_rmse)
    assert best.epoch < len(history), "the toy has to overfit for this test"
    assert best_epoch(history) == best
    kept = parameters(Checkpoint.open(tmp_path).network(CPU))
    assert same(kept, states[best.epoch - 1])
    assert not same(kept, states[-1])


def test_files_of_others_stay_and_what_a_kill_left_goes(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ModelError, match="holds thesis.tex and no model"):
        Checkpoint(tmp_path, make_run())
    (tmp_path / "m").mkdir()
    # As a link, it could lead to anything.
    (tmp_path / "m" / ".saving").symlink_to(tmp_path / "thesis.tex")
    train(tmp_path / "m", make_run())
    assert [*content(tmp_path / "m")] == [MODEL_FILE]
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_two_trainings_do_not_save_to_one_folder(tmp_path):
    training = Training(make_run(), CPU)
    first = saving(Checkpoint(tmp_path, make_run()), training)
    next(first)
    with pytest.raises(ModelError, match="another training is saving"):
        train(tmp_path, make_run(), overwrite=True)
    first.close()
    train(tmp_path, make_run(), overwrite=True)


def begin(directory, **recipe):
    """A training whose first epoch is saved, and whose others are as they pass by."""
    run = make_run(**{"num_epochs": 3, **recipe})
    training = Training(run, CPU)
    epochs = saving(Checkpoint(directory, run), training)
    next(epochs)
    return epochs


def test_a_folder_that_was_moved_is_found_again(tmp_path):
    epochs = begin(tmp_path / "m")
    (tmp_path / "m").rename(tmp_path / "moved")
    second = begin(tmp_path / "m", lr=0.1)  # in a folder of that name
    (tmp_path / "m" / ".saving").write_bytes(b"of the second one")
    before = content(tmp_path / "m")
    said = f"m: was moved to {tmp_path}/moved during .*--resume {tmp_path}/moved"
    with pytest.raises(ModelError, match=said):
        next(epochs)
    assert content(tmp_path / "m") == before
    assert len(Checkpoint.open(tmp_path / "moved").history) == 1
    next(second)
    assert len(Checkpoint.open(tmp_path / "m").history) == 2


@pytest.mark.parametrize("there", [True, False], ids=["another", "none"])
def test_a_folder_that_was_removed_is_not_made_again(tmp_path, there):
    epochs = begin(tmp_path / "m")
    shutil.rmtree(tmp_path / "m")
    if there:
        (tmp_path / "m").mkdir()
    with pytest.raises(ModelError, match="m: was moved or removed during the training"):
        next(epochs)
    assert (tmp_path / "m").exists() == there and not [*tmp_path.glob("m/*")]


def test_a_model_is_read_while_a_training_saves_to_it(tmp_path, monkeypatch):
    epochs = begin(tmp_path)
    opening = os.open

    def save_after(file, *args):
        handle = opening(file, *args)
        if str(file).endswith(MODEL_FILE):
            with monkeypatch.context() as patched:
                patched.setattr(os, "open", opening)
                next(epochs)
        return handle

    monkeypatch.setattr(os, "open", save_after)
    assert len(Checkpoint.open(tmp_path).history) == 1
    assert len(Checkpoint.open(tmp_path).history) == 2


def test_a_model_is_replaced_only_if_asked_for(tmp_path):
    train(tmp_path, make_run())
    before = content(tmp_path)
    with pytest.raises(ModelError, match=r"holds a model; .*--resume .*--overwrite"):
        Checkpoint(tmp_path, make_run(lr=0.1))
    assert content(tmp_path) == before
    train(tmp_path, make_run(lr=0.1), overwrite=True)
    assert Checkpoint.open(tmp_path).run.recipe.lr == 0.1


def test_any_changed_byte_is_refused(tmp_path):
    train(tmp_path, make_run(num_epochs=1, valid=True))
    rng = np.random.default_rng(0)
    (raw,) = content(tmp_path).values()
    flipped = (
        raw[:place] + bytes([raw[place] ^ rng.integers(1, 256)]) + raw[place + 1 :]
        for place in rng.choice(len(raw), 300, False)
    )
    for changed in (b"", raw[:-1], raw + b"\n", *flipped):
        (tmp_path / MODEL_FILE).write_bytes(changed)
        with pytest.raises(ModelError) as caught:
            Checkpoint.open(tmp_path)
        assert "\n" not in str(caught.value)


def make_socket(name):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(name)


ODD = {
    "none": (lambda name: None, "holds no model"),
    "folder": (os.mkdir, "cannot be read"),
    "loop": (lambda name: os.symlink(name, name), "cannot be read"),
    "socket": (make_socket, "cannot be read"),
    "pipe": (os.mkfifo, "is not a regular file"),
}


@pytest.mark.parametrize("make, said", ODD.values(), ids=ODD)
def test_what_is_no_file_is_named_and_closed(tmp_path, monkeypatch, make, said):
    monkeypatch.chdir(tmp_path)
    make(MODEL_FILE)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ModelError, match=said):
        load_model(tmp_path)
    assert os.listdir("/proc/self/fd") == before


def test_no_folder_and_a_file_are_no_model(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(ModelError, match="holds no model"):
            Checkpoint.open(place)
        with pytest.raises(ModelError, match="holds no model"), lock(place):
            pass
    assert not (tmp_path / "none").exists()


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
    training = Training(run, CPU)
    epoch = next(training.epochs())
    arrays = training.parameters(), training.state()
    largest = len(before[MODEL_FILE])
    for size in (*range(0, largest - 100, 500), largest - 100):
        with room_for_files_of(size), pytest.raises(OSError, match=str(tmp_path)):
            Checkpoint(tmp_path, run, overwrite=True).save(epoch, *arrays)
        assert content(tmp_path) == before
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
    training = Training(new, CPU)
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
    assert finished and stop > 5
    assert seen == {0.002, 0.1}
