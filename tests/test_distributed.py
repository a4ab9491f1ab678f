"""Several workers: a scheduler, a server and two of them on this machine."""

import json
import os
import signal
import socket
import subprocess
import sys

import numpy as onp
import pytest

from d2l_autorec.distributed import check_environment
from d2l_autorec.errors import ClusterError

# Trains on 23 rows in batches of 5, which two workers with two devices each do not
# divide; some shares get no row, and some rows have no rating.
TRAINING = """
import json, sys
from d2l_autorec import seed_everything  # before MXNet, to get ready for it
from d2l_autorec.distributed import join
from d2l_autorec.recipe import Recipe
import mxnet as mx, numpy as onp, scipy.sparse as sp

kvstore, num_epochs = sys.argv[1], int(sys.argv[2])
settings = json.loads(sys.argv[3])
team = join(kvstore) if kvstore else None
rng = onp.random.default_rng(0)
dense = rng.integers(1, 6, (23, 17)).astype(onp.float32)
part = rng.choice(3, dense.shape, p=[0.6, 0.3, 0.1])
part[[3, 8, 9]] = 2
seed_everything(0)
recipe = Recipe(
    **{"num_hidden": 8, "lr": 0.01, "batch_size": 5, **settings},
    dropout=0.0,
    num_epochs=num_epochs,
)
training = recipe.train(
    sp.csr_matrix(dense * (part == 1)),
    sp.csr_matrix(dense * (part == 2)),
    [mx.cpu(0), mx.cpu(1)],
    0,
    team=team,
)
history = []
for epoch in training.epochs:
    print("epoch", epoch.epoch, flush=True)
    history.append((epoch.train_loss, epoch.test_rmse))
parameters = training.net.collect_params().values()
weights = [p.data(mx.cpu(0)).asnumpy().ravel().tolist() for p in parameters]
print(json.dumps({"history": history, "weights": sum(weights, [])}), flush=True)
"""


def start(role=None, num_epochs=3, port=None, settings=None, timeout=60):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DMLC_")}
    environment["OMP_NUM_THREADS"] = "1"
    if role:
        environment |= {
            "DMLC_ROLE": role,
            "DMLC_PS_ROOT_URI": "127.0.0.1",
            "DMLC_PS_ROOT_PORT": str(port),
            "DMLC_INTERFACE": "lo",
            "DMLC_NUM_SERVER": "1",
            "DMLC_NUM_WORKER": "2",
            "PS_HEARTBEAT_INTERVAL": "1",
            "PS_HEARTBEAT_TIMEOUT": str(timeout),
        }
    return subprocess.Popen(
        [
            *(sys.executable, "-c", TRAINING),
            *("dist_sync" if role else "", str(num_epochs)),
            json.dumps(settings or {}),
        ],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def cluster():
    """Start the processes of a training; end those that it leaves behind."""
    processes = {}

    def launch(num_epochs, settings=None, timeout=60):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for name in ("scheduler", "server", "worker 0", "worker 1"):
            role = name.split()[0]
            processes[name] = start(role, num_epochs, port, settings, timeout)
        return processes

    yield launch
    for process in processes.values():
        process.kill()
        process.communicate()


def outcome(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


FAMILY = {
    **{"kind": "user", "members": 2, "loss": "paper", "schedule": "cosine"},
    **{"num_hidden": (8, 4, 8), "optimizer": "sgd"},
}


@pytest.mark.parametrize("settings", [{}, FAMILY], ids=["book", "family"])
def test_two_workers_do_what_one_process_does(cluster, settings):
    processes = cluster(3, settings)
    first, second = (outcome(processes[f"worker {i}"]) for i in range(2))
    for name in ("scheduler", "server"):
        assert processes[name].wait(60) == 0
    assert first["weights"] == second["weights"]
    alone = outcome(start(settings=settings))
    for found in (first, second):
        assert onp.array(found["history"]) == pytest.approx(
            onp.array(alone["history"]), abs=1e-4
        )
        assert onp.array(found["weights"]) == pytest.approx(
            onp.array(alone["weights"]), abs=1e-3
        )


def test_a_worker_that_dies_ends_the_others_with_a_message(cluster):
    processes = cluster(num_epochs=10**6, timeout=4)
    victim = processes.pop("worker 1")
    assert victim.stdout.readline() == "epoch 1\n"
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    silent = {
        "scheduler": "a worker or a server was silent for 4 s",
        "server": "the scheduler was silent for 4 s",
        "worker 0": "the scheduler was silent for 4 s",
    }
    for name, message in silent.items():
        _, err = processes[name].communicate(timeout=60)
        assert processes[name].returncode == 1
        assert message in err


COMPLETE = {
    "DMLC_ROLE": "worker",
    "DMLC_PS_ROOT_URI": "127.0.0.1",
    "DMLC_PS_ROOT_PORT": "9100",
    "DMLC_NUM_SERVER": "1",
    "DMLC_NUM_WORKER": "2",
}


def test_a_complete_environment_passes(monkeypatch):
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    check_environment()


@pytest.mark.parametrize("missing", COMPLETE)
def test_a_missing_variable_is_named(monkeypatch, missing):
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(missing)
    with pytest.raises(ClusterError, match=f"^{missing}"):
        check_environment()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DMLC_ROLE", "master", "DMLC_ROLE is 'master'; it is one of scheduler"),
        ("DMLC_NUM_WORKER", "two", "DMLC_NUM_WORKER is 'two'; it is a whole number"),
        ("DMLC_NUM_SERVER", "0", "DMLC_NUM_SERVER is '0'; it is a whole number"),
        ("PS_HEARTBEAT_TIMEOUT", "1m", "PS_HEARTBEAT_TIMEOUT is '1m'; it is a whole"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch, name, value, message):
    for other, right in COMPLETE.items():
        monkeypatch.setenv(other, right)
    monkeypatch.setenv(name, value)
    with pytest.raises(ClusterError, match=message):
        check_environment()


def test_the_command_says_in_one_line_what_is_missing():
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DMLC_")}
    done = subprocess.run(
        [sys.executable, "-m", "d2l_autorec.train", "--kvstore", "dist_sync"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: DMLC_ROLE is not set; it is one of")
    assert done.stderr.count("\n") == 1
