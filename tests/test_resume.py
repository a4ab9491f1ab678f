"""Training that goes on: to the last digit what it would have been in one go."""

import json
import random
import signal
import subprocess
import time
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file
from test_checkpoint import CPU, make_run, parameters, same, saving, train

from d2l_autorec._mxnet import mx
from d2l_autorec.commands import train as command
from d2l_autorec.errors import ModelError
from d2l_autorec.serving import MODEL_FILE, Checkpoint
from d2l_autorec.training import PRESETS, Training
from d2l_autorec.training.settings import OPTIMIZERS


def resume(directory, num_epochs, devices=CPU):
    checkpoint = Checkpoint.open(directory)
    recipe = checkpoint.run.recipe.changed(num_epochs=num_epochs)
    checkpoint.run = replace(checkpoint.run, recipe=recipe)
    training = Training(checkpoint.run, devices, checkpoint.history)
    checkpoint.restore(training)
    list(saving(checkpoint, training))
    return checkpoint.history, training.net


def assert_same(one, other):
    """Two trainings, each with its history and its network, are one."""
    for history, others in zip(one[0], other[0], strict=True):
        assert history._replace(seconds=0) == others._replace(seconds=0)
    assert same(parameters(one[1]), parameters(other[1]))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_parts_of_a_training_equal_the_whole(tmp_path, optimizer):
    # 9 items in batches of 4: every epoch leaves samples over for the next one.
    batch_size = None if optimizer == "rprop" else 4
    settings = {"optimizer": optimizer, "batch_size": batch_size}
    whole = train(tmp_path / "a", make_run(6, True, **settings))
    train(tmp_path / "b", make_run(1, True, **settings))
    resume(tmp_path / "b", 3)
    assert_same(resume(tmp_path / "b", 6), whole)
    assert Checkpoint.open(tmp_path / "b").run.recipe.num_epochs == 6


SMALL = {"num_hidden": 3, "batch_size": 4, "num_epochs": 5}
PAPER = {"loss": "paper", "wd": 9.0}
RECIPES = {
    "cosine": {"schedule": "cosine"},
    "cosine, by the book's step": {"schedule": "cosine", "optimizer": "sgd"},
    "user-based": {"kind": "user", **PAPER},
    "residual": {"residual": True, "clip": True, **PAPER},
    "left out": {"leave_one_out": True, "dropout": 0.0, "input_dropout": 0.3},
    "bounded": {"output": "sigmoid", "activation": "tanh", "loss": "rmse"},
    "pretrained": {
        **{"num_hidden": (4, 3, 4), "pretrain_epochs": 2, "schedule": "cosine"},
        **{"clip": True, "cold": "mean", "input_dropout": 0.3},
    },
}
SEVERAL = {
    "average": lambda: make_run(5, kind="user", **PAPER).recipe.averaged(2),
    "deep average": lambda: make_run(5, **RECIPES["pretrained"]).recipe.averaged(2),
    "blend": lambda: replace(
        PRESETS["best"].changed(**SMALL), weights=(0.3, 0.2, 0.0, 0.4, 0.1)
    ),
}


@pytest.mark.usefixtures("short_pretraining")
@pytest.mark.parametrize("name", [*RECIPES, *SEVERAL])
def test_an_interrupted_training_goes_on_with_any_recipe(tmp_path, name):
    run = make_run(5, True, **RECIPES.get(name, {}))
    if name in SEVERAL:
        run = replace(run, recipe=SEVERAL[name]())
    whole = train(tmp_path / "a", run)
    training = Training(run, CPU)
    epochs = saving(Checkpoint(tmp_path / "b", run), training)
    list(islice(epochs, 2))
    epochs.close()
    assert_same(resume(tmp_path / "b", 5), whole)
    assert Checkpoint.open(tmp_path / "b").run.recipe == run.recipe
    if run.recipe.recipes[0].schedule == "cosine":
        assert whole[0][3] != whole[0][4]


def test_two_devices_go_on_too(tmp_path):
    devices = [mx.cpu(0), mx.cpu(1)]
    run = make_run(4)
    training = Training(run, devices)
    list(saving(Checkpoint(tmp_path / "a", run), training))
    run = make_run(2)
    begun = Training(run, devices)
    list(saving(Checkpoint(tmp_path / "b", run), begun))
    _, resumed = resume(tmp_path / "b", 4, devices)
    for name, value in training.net._collect_params_with_prefix().items():
        other = resumed._collect_params_with_prefix()[name]
        np.testing.assert_allclose(
            value.data(devices[0]).asnumpy(),
            other.data(devices[0]).asnumpy(),
            rtol=1e-5,
        )


def test_it_goes_on_after_any_number_of_other_networks(tmp_path):
    # MXNet counts layers through a process, and as names "dense10" is before "dense9".
    whole = train(tmp_path / "a", make_run(4))
    train(tmp_path / "b", make_run(2))
    with mx.name.NameManager() as names:
        names._counter["dense"] = 7
        parts, net = resume(tmp_path / "b", 4)
    assert (net.encoder.prefix, net.decoder.prefix) == ("dense0_", "dense1_")
    assert_same((parts, net), whole)


@pytest.fixture
def ratings_file(tmp_path):
    rng = np.random.default_rng(0)
    lines = [
        f"u{user},i{item},{rng.integers(1, 11) / 2}"
        for user in range(30)
        for item in rng.permutation(40)[:20]
    ]
    file = tmp_path / "ratings.csv"
    file.write_text("user,item,rating\n" + "\n".join(lines))
    return file


def flags(file, directory, *more):
    return [
        *("--ratings", str(file), "--save", str(directory), "-k", "8", "-b", "16"),
        *("--seed", "3", "--quiet", "--devices", "cpu", *more),
    ]


def test_the_command_goes_on(tmp_path, ratings_file, capsys):
    command.main(flags(ratings_file, tmp_path / "a", "-e", "5"))
    whole = capsys.readouterr().out
    command.main(flags(ratings_file, tmp_path / "b", "-e", "2"))
    capsys.readouterr()
    command.main(["--resume", str(tmp_path / "b"), "-e", "5"])
    shown = capsys.readouterr().out
    assert "going on after epoch 2 of 5" in shown
    assert all(line in shown for line in whole.splitlines()[:2])
    assert same(*(arrays(tmp_path / name) for name in "ab"))


def test_a_finished_training_is_only_reported(tmp_path, ratings_file, capsys):
    command.main(flags(ratings_file, tmp_path / "a", "-e", "2"))
    first = capsys.readouterr().out
    before = (tmp_path / "a" / MODEL_FILE).read_bytes()
    command.main(["--resume", str(tmp_path / "a"), "--quiet"])
    assert capsys.readouterr().out == first
    assert (tmp_path / "a" / MODEL_FILE).read_bytes() == before


def test_patience_stops_and_is_kept(tmp_path, ratings_file, capsys, monkeypatch):
    # These ratings are noise: no network will be better than biases.
    monkeypatch.setattr("d2l_autorec.training.training.STEPS_BEFORE_PATIENCE", 0)
    command.main(
        flags(
            *(ratings_file, tmp_path / "a", "-e", "60", "--lr", "0.1"),
            *("--valid-ratio", "0.2", "--patience", "3"),
            *("--json", str(tmp_path / "r.json")),
        )
    )
    assert json.loads((tmp_path / "r.json").read_text())["ended"] == "patience"
    out = capsys.readouterr().out
    history = Checkpoint.open(tmp_path / "a").history
    best = min(history, key=lambda epoch: epoch.valid_rmse).epoch
    assert len(history) == best + 3 < 60
    assert f"kept: epoch {best}, the best on validation (RMSE " in out
    assert f"; ended: after epoch {best + 3} of 60, as 3 brought no new best (" in out
    command.main(["--resume", str(tmp_path / "a"), "--quiet"])
    assert capsys.readouterr().out == out  # why it ended, again
    assert len(Checkpoint.open(tmp_path / "a").history) == len(history)
    command.main(["--resume", str(tmp_path / "a"), "--quiet", "--patience", "5"])
    assert len(Checkpoint.open(tmp_path / "a").history) > len(history)


def test_errors_of_a_resume_are_clear(tmp_path, ratings_file, capsys):
    command.main(flags(ratings_file, tmp_path / "a", "-e", "2"))
    with pytest.raises(ModelError, match="already trained for 2 epochs"):
        command.main(["--resume", str(tmp_path / "a"), "-e", "1"])
    with pytest.raises(ModelError, match="no validation part"):
        command.main(["--resume", str(tmp_path / "a"), "--patience", "1"])
    with pytest.raises(ModelError, match="holds no model"):
        command.main(["--resume", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()


def test_a_folder_is_read_when_no_other_training_saves_to_it(
    tmp_path, ratings_file, monkeypatch, capsys
):
    directory = tmp_path / "a"
    command.main(flags(ratings_file, directory, "-e", "2"))
    read = Checkpoint.open

    def read_while_another_starts(folder):
        checkpoint = read(folder)
        with monkeypatch.context() as other:
            other.setattr(Checkpoint, "open", read)
            with pytest.raises(ModelError, match="another training is saving to it"):
                command.main(["--resume", str(folder), "-e", "9", "--quiet"])
        return checkpoint

    monkeypatch.setattr(Checkpoint, "open", read_while_another_starts)
    command.main(["--resume", str(directory), "-e", "4", "--quiet"])
    assert epochs_saved(directory) == 4


@pytest.mark.parametrize(
    ("owner", "method", "interrupt", "more"),
    [
        (Checkpoint, "save", False, ["-e", "2"]),
        (Checkpoint, "save", True, ["-e", "2"]),
        (Checkpoint, "save", False, ["-e", "1"]),
        (Training, "choose", False, ["-e", "2", "--valid-ratio", "0.2", "--refit"]),
    ],
    ids=["between epochs", "interrupted", "at the end", "before the first epoch"],
)
def test_the_command_says_where_to_a_folder_was_moved(
    tmp_path, ratings_file, monkeypatch, capsys, owner, method, interrupt, more
):
    original = getattr(owner, method)

    def move(*args):
        found = original(*args)
        (tmp_path / "m").rename(tmp_path / "moved")
        (tmp_path / "m").mkdir()
        if interrupt:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(owner, method, move)
    said = f"m: was moved to {tmp_path}/moved"
    with pytest.raises((ModelError, KeyboardInterrupt), match=said):
        command.main(flags(ratings_file, tmp_path / "m", *more))
    assert not [*(tmp_path / "m").iterdir()]


def test_a_second_training_of_a_folder_changes_nothing(
    tmp_path, ratings_file, start_training
):
    directory = tmp_path / "a"
    process = start_training(flags(ratings_file, directory, "-e", "1000000"))
    wait_for_epochs(directory, 1, process)
    for argv in (
        ["--resume", str(directory), "-e", "2000000"],
        flags(ratings_file, directory, "--overwrite"),
    ):
        with pytest.raises(ModelError, match="another training is saving to it"):
            command.main(argv)
    process.kill()
    process.communicate(timeout=60)
    checkpoint = Checkpoint.open(directory)
    assert checkpoint.run.recipe.num_epochs == 1_000_000
    # Of the killed one no lock is left.
    resume(directory, len(checkpoint.history) + 1)


def test_a_cosine_schedule_ends_where_it_was_planned(tmp_path, ratings_file, capsys):
    directory = tmp_path / "a"
    command.main(flags(ratings_file, directory, "-e", "3", "--schedule", "cosine"))
    said = "schedule ends with epoch 3; for 6 epochs train anew"
    with pytest.raises(ModelError, match=said):
        command.main(["--resume", str(directory), "-e", "6", "--quiet"])
    before = (directory / MODEL_FILE).read_bytes()
    command.main(["--resume", str(directory), "-e", "3", "--quiet"])
    assert (directory / MODEL_FILE).read_bytes() == before


@pytest.fixture
def start_training(start):
    def start_training(argv):
        return start("-m", "d2l_autorec.train", *argv, stderr=subprocess.STDOUT)

    return start_training


def epochs_saved(directory):
    file = directory / MODEL_FILE
    if not file.exists():
        return 0
    with safe_open(file, "numpy") as found:
        return len(json.loads(found.metadata()["model"])["history"])


def arrays(directory):
    """All that was saved, but for the checksum, which is of the seconds, too."""
    found = load_file(directory / MODEL_FILE)
    del found["sha256"]
    return found


def wait_for_epochs(directory, count, process):
    while epochs_saved(directory) < count and process.poll() is None:
        time.sleep(0.005)


ENDLESS = ("-e", str(10**6))  # however long the machine takes to end it


def test_ctrl_c_says_how_to_go_on(tmp_path, ratings_file, start_training):
    directory = tmp_path / "m"
    process = start_training(flags(ratings_file, directory, *ENDLESS))
    wait_for_epochs(directory, 2, process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out.startswith("interrupted; ") and f"--resume {directory}" in out
    assert out.count("\n") == 1
    saved = len(Checkpoint.open(directory).history)
    resume(directory, saved + 1)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_fifty_times_it_ends_the_same(tmp_path, ratings_file, start_training):
    rng = random.Random(0)
    directory = tmp_path / "parts"
    argv = flags(ratings_file, directory, *ENDLESS)
    for kill in range(50):
        process = start_training(argv)
        # Now and then before the first save, else somewhere in the coming epochs.
        before = epochs_saved(directory)
        if kill % 10 != 9:
            wait_for_epochs(directory, before + 1, process)
        time.sleep(rng.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, out
        after = epochs_saved(directory)
        assert before <= after
        if after:
            argv = ["--resume", str(directory), "--quiet", "--devices", "cpu"]
    end = ("-e", str(after + 3))
    command.main([*argv, *end])
    command.main(flags(ratings_file, tmp_path / "whole", *end))
    parts, whole = (Checkpoint.open(tmp_path / name) for name in ("parts", "whole"))
    assert_same(*((one.history, one.network(CPU)) for one in (parts, whole)))
    assert same(*(arrays(tmp_path / name) for name in ("parts", "whole")))
