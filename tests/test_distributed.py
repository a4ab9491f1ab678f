"""Several workers: a scheduler, a server and two of them on this machine.

Nothing here depends on how long something takes: what is waited for comes, or all
processes of the test are ended, and the test fails.
"""

import json
import mmap
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import mxnet as mx
import numpy as onp
import pytest
import scipy.sparse as sp

from d2l_autorec import AutoRec, seed_everything
from d2l_autorec.cluster import Team, check_environment, links, portion, processes
from d2l_autorec.cluster.links import Links, meet
from d2l_autorec.cluster.portion import Portion
from d2l_autorec.commands.train import main as train_command
from d2l_autorec.errors import ClusterError
from d2l_autorec.fast.parcels import FineParcel, Parcel, RoundedParcel
from d2l_autorec.serving import Checkpoint
from d2l_autorec.training import PRESETS, Parts, Recipe, Training

LIMIT = 300  # seconds for a test, on a machine that is busy with others
TRAINING = (str(Path(__file__).with_name("distributed_training.py")),)
# What a scheduler or server is before MXNet is there, and takes it over.
WAITING = (
    "-c",
    "import threading; from d2l_autorec.cluster import prepare; "
    "prepare(); threading.Event().wait()",
)


class Cluster:
    """Processes on this machine, with ports that are theirs."""

    def __init__(self, **settings):
        self.processes = {}
        self.settings = settings
        # Held as long as the test takes, so that nobody else gets them. A listener may
        # have a port that another socket holds if both allow it, on Linux.
        self._held, self.port = two_ports()
        for holder in self._held:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if sys.platform != "linux":
                holder.close()
        # Ends whatever reads from a process, too.
        self._alarm = threading.Timer(LIMIT, self.kill)
        self._alarm.start()

    def start(self, name, *command, **settings):
        """Start the process of a name that begins with its role."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DMLC_")}
        environment |= {
            "OMP_NUM_THREADS": "1",
            "DMLC_ROLE": name.split()[0],
            "DMLC_PS_ROOT_URI": "127.0.0.1",
            "DMLC_PS_ROOT_PORT": str(self.port),
            "DMLC_INTERFACE": "lo",
            "DMLC_NUM_SERVER": "1",
            "DMLC_NUM_WORKER": "2",
            **self.settings,
            **settings,
        }
        self.processes[name] = subprocess.Popen(
            [sys.executable, *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self.processes[name]

    def end(self, name):
        """Wait for the end of a process; return its exit code and what it wrote."""
        process = self.processes[name]
        out, err = process.communicate(timeout=LIMIT)
        return process.returncode, out, err

    def ends(self, names):
        """Do so for several, all at once: none waits for its reader."""
        with ThreadPoolExecutor(len(names)) as readers:
            return dict(zip(names, readers.map(self.end, names)))

    def kill(self):
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

    def close(self):
        self._alarm.cancel()
        self.kill()
        for process in self.processes.values():
            process.communicate(timeout=LIMIT)
        for holder in self._held:
            holder.close()


def two_ports():
    """Bind two sockets to a port and the next one; return them and the first port."""
    while True:
        first, second = socket.socket(), socket.socket()
        first.bind(("127.0.0.1", 0))
        port = first.getsockname()[1]
        try:
            second.bind(("127.0.0.1", port + 1))
        except (OSError, OverflowError):
            first.close()
            second.close()
        else:
            return (first, second), port


@pytest.fixture
def make_cluster():
    made = []

    def make(**settings):
        made.append(Cluster(**settings))
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()


@pytest.fixture
def cluster(make_cluster):
    return make_cluster()


PAPER = {"dropout": 0.0, "loss": "paper", "schedule": "cosine", "wd": 200.0}
DEEP = {
    **PAPER,
    **{"num_hidden": (8, 4, 8), "members": 2, "pretrain_epochs": 2, "wd": None},
    **{"clip": True, "cold": "mean"},
}
FEW = {
    "book": {},
    "wide": {"num_hidden": 200, "dropout": 0.5},
    "paper, user-based": {**PAPER, "kind": "user"},
    "deep": DEEP,
    "sgd": {"optimizer": "sgd", "residual": True},
    "left out": {**PAPER, "leave_one_out": True, "members": 2, "input_dropout": 0.3},
    "blend": [
        {**PAPER, "standardize": True, "from_mean": True, "input_dropout": 0.4},
        {**PAPER, "residual": True, "kind": "user", "cold": "biases", "balance": 0.4},
    ],
}
MANY = {
    **FEW,
    "book, user-based": {"kind": "user"},
    "paper": PAPER,
    "deep, user-based": {**DEEP, "kind": "user"},
    "dropped": {**DEEP, "input_dropout": 0.3, "dropout": 0.2},
    "dropped, user-based": {"kind": "user", "input_dropout": 0.3},
    "best": [
        {**asdict(recipe), "num_hidden": 8, "batch_size": 5, "num_epochs": 3}
        for recipe in PRESETS["best"].recipes
    ],
    "bounded": {"output": "sigmoid", "activation": "elu"},
    "rprop": {"optimizer": "rprop", "batch_size": None, "members": 2},
    "adagrad": {"optimizer": "adagrad", "num_hidden": (8, 6), "balance": 0.4},
}


@pytest.mark.parametrize(
    ("num_workers", "recipes", "far"),
    [
        (2, FEW, False),
        (2, {"book": {}}, True),
        *(pytest.param(n, MANY, False, marks=pytest.mark.slow) for n in (1, 2, 3, 4)),
    ],
)
def test_workers_do_what_one_process_does(
    make_cluster, short_pretraining, num_workers, recipes, far
):
    if far and sys.platform != "linux":
        pytest.skip("asks for several addresses of this machine, which Linux has")
    cluster = make_cluster(DMLC_NUM_WORKER=str(num_workers))
    workers = [f"worker {i}" for i in range(num_workers)]
    for number, name in enumerate(("scheduler", "server", *workers)):
        own = {"DMLC_NODE_HOST": f"127.0.0.{1 + number}"} if far else {}
        cluster.start(name, *TRAINING, json.dumps([*recipes.values()]), **own)
    from distributed_training import train  # meanwhile

    alone = [train(recipe) for recipe in recipes.values()]
    outcomes = cluster.ends(["scheduler", "server", *workers])
    for code, _, err in outcomes.values():
        assert (code, err) == (0, "")
    found = [json.loads(outcomes[name][1]) for name in workers]
    for name, expected, *each in zip(recipes, alone, *found):
        weights = max((one["weights"] for one in each), key=len)  # the first one's
        assert onp.array(weights) == pytest.approx(
            onp.array(expected["weights"]), abs=1e-3
        ), name
        for one in each:
            assert onp.array(one["history"]) == pytest.approx(
                onp.array(expected["history"]), abs=1e-4
            ), name


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_worker_drops_inputs(optimizer):
    dense = onp.random.default_rng(0).integers(1, 6, (6, 5)).astype(onp.float32)
    parts, team = Parts(sp.csr_matrix(dense)), Team(Links(0, {}, lose), None)
    weights = []
    for share in (0.0, 0.5):
        seed_everything(0)
        recipe = Recipe(8, dropout=0.0, input_dropout=share, optimizer=optimizer)
        training = Training(recipe, parts, [mx.cpu()], 0, team=team)
        next(training.epochs())
        weights.append(training.net.encoder.weight.data().asnumpy())
    assert (weights[0] != weights[1]).any()


@pytest.mark.parametrize(
    "more",
    [[], *(pytest.param(["--workers", n], marks=pytest.mark.slow) for n in "13")],
)
def test_workers_on_this_machine_save_what_any_number_goes_on_with(
    run, capsys, small_data, tmp_path, more
):
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    command = ["-k", "8", "-b", "16", "--quiet", "--valid-ratio", "0.2"]
    command += ["--patience", "3", "--save"]
    begin = [*command, shared, "-e", "2", "--workers", "2"]
    assert run("-m", "d2l_autorec.train", *begin)[::2] == (0, "")
    for argv in (
        ["--quiet", "-e", "4", "--resume", shared, *more],
        [*command, alone, "-e", "4"],
    ):
        try:
            train_command([str(word) for word in argv])
        except SystemExit as stopped:
            assert stopped.code == 0
    found, expected = (Checkpoint.open(folder).history for folder in (shared, alone))
    assert len(found) == len(expected) == 4
    for ours, theirs in zip(found, expected):
        for score in ("train_loss", "test_rmse", "valid_rmse"):
            assert getattr(ours, score) == pytest.approx(
                getattr(theirs, score), abs=1e-4
            )


@pytest.mark.slow
def test_several_workers_go_on_with_a_blend_as_one_process_does(
    run, small_data, tmp_path
):
    recipe = ["--preset", "best", "-k", "8", "-b", "16", "--lr", "0.01", "-e", "2"]
    recipe += ["--schedule", "constant"]
    histories = []
    for workers in ([], ["--workers", "2"]):
        folder = tmp_path / f"{len(workers)}"
        for argv in ([*recipe, "--save", folder], ["--resume", folder, "-e", "4"]):
            command = ["-m", "d2l_autorec.train", "--quiet", *argv, *workers]
            assert run(*command)[::2] == (0, "")
        found = Checkpoint.open(folder).history
        histories.append([(epoch.train_loss, epoch.test_rmse) for epoch in found])
    alone, shared = map(onp.array, histories)
    assert shared.shape == (4, 2)
    assert shared == pytest.approx(alone, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_all_workers_with_one_line(
    start, small_data, tmp_path, number
):
    folder = tmp_path / "model"
    command = ["-m", "d2l_autorec.train", "-k", "8", "--quiet", "--workers", "2"]
    process = start(*command, "-e", "100000", "--save", folder)
    while not (folder / "model.json").exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert re.fullmatch(r"interrupted(; \d+ of \d+ epochs are saved, go on .*)?\n", err)
    Checkpoint.open(folder)


class Lost(Exception):
    """A worker has lost another one, where it would wait to be ended."""


def lose(rank):
    raise Lost(rank)


@pytest.fixture
def connect():
    """Connect workers that are threads here."""
    peers = []

    def connect(size):
        each = [{} for _ in range(size)]
        for one in range(size):
            for other in range(one):
                each[one][other], each[other][one] = pair = socket.socketpair()
                peers.extend(pair)
        return [Links(rank, each[rank], lose) for rank in range(size)]

    yield connect
    for peer in peers:
        peer.close()


def at_once(function, *arguments):
    """Call a function for each of several workers, as none can go on alone."""
    with ThreadPoolExecutor(len(arguments[0])) as threads:
        return list(threads.map(function, *arguments, timeout=LIMIT))


@pytest.mark.parametrize(
    ("kind", "atol"), [(Parcel, 1e-5), (FineParcel, 1e-5), (RoundedParcel, 1e-3)]
)
@pytest.mark.parametrize("awake", [0, LIMIT])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_workers_add_up_arrays_of_any_size_alike(
    connect, monkeypatch, size, awake, kind, atol
):
    monkeypatch.setattr(links, "_AWAKE", awake)
    rng = onp.random.default_rng(0)
    # Fewer numbers than workers, and more than a connection takes at a time.
    shapes = [(1,), (2, 1), (3,), (0,), (700, 1000), (17, 5)]
    given = [
        [rng.normal(size=shape).astype(onp.float32) for shape in shapes]
        for _ in range(size)
    ]
    expected = [sum(arrays) for arrays in zip(*given)]

    def add_up(own, arrays):
        # The next sum begins while the last one is on its way.
        ends = [own.start(array, kind) for array in arrays]
        for end in ends:
            end()

    at_once(add_up, connect(size), given)
    for arrays, total in zip(zip(*given), expected):
        for array in arrays:
            onp.testing.assert_allclose(array, total, atol=atol)
            onp.testing.assert_array_equal(array, arrays[0])


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
@pytest.mark.parametrize(
    ("node", "interface", "expected"),
    [
        (None, None, "10.0.0.9"),
        (None, "lo", "127.0.0.1"),
        ("10.0.0.1", "lo", "10.0.0.1"),
    ],
)
def test_workers_connect_where_the_environment_says(
    monkeypatch, node, interface, expected
):
    for name, value in [("DMLC_NODE_HOST", node), ("DMLC_INTERFACE", interface)]:
        monkeypatch.setenv(name, value or "")
    assert processes.address(SimpleNamespace(host=lambda: "10.0.0.9")) == expected


@pytest.mark.parametrize("size", [2, 3])
def test_a_worker_that_dies_in_a_sum_is_lost_to_the_others(connect, size):
    *others, dead = connect(size)

    def add_up(links):
        with pytest.raises(Lost, match=f"^{dead.rank}$"):
            links.start(onp.ones((700, 1000), onp.float32), Parcel)()

    def die():
        # A part of what the others wait for.
        dead.start(onp.ones(1, onp.float32), Parcel)
        for link in dead._links.values():
            link.peer.close()

    with ThreadPoolExecutor(size) as threads:
        waiting = [threads.submit(add_up, links) for links in others]
        threads.submit(die).result(LIMIT)
        for one in waiting:
            one.result(LIMIT)


def test_who_is_lost_is_named_once_the_scheduler_had_its_time(monkeypatch):
    slept = []
    monkeypatch.setenv("PS_HEARTBEAT_TIMEOUT", "7")
    monkeypatch.setattr(processes.time, "sleep", slept.append)
    watch = processes.Watch()
    monkeypatch.setattr(watch, "leave", lose)
    with pytest.raises(Lost, match="^worker 1 has gone$"):
        watch.lose("worker 1 has gone")
    assert slept == [7]


def test_only_workers_are_connected():
    told, barrier = {}, threading.Barrier(3, timeout=LIMIT)
    strangers = []

    def connected(rank):
        def tell(own):
            told[rank] = own
            barrier.wait()
            if rank == 0:  # before anybody who is expected
                host, port, _ = own
                for words in (b"", b"GET / HTTP/1.1\r\n\r\n ", bytes(16) + b"\0\0\0\1"):
                    strangers.append(socket.create_connection((host, port), LIMIT))
                    strangers[-1].sendall(words)
            barrier.wait()
            return [told[other] for other in range(3)]

        return meet(rank, "127.0.0.1", tell)

    each = at_once(connected, range(3))
    try:
        assert [sorted(peers) for peers in each] == [[1, 2], [0, 2], [0, 1]]
        for one, other in [(0, 1), (0, 2), (1, 2)]:
            each[one][other].sendall(b"%d" % one)
            assert each[other][one].recv(1) == b"%d" % one
        for stranger in strangers:
            with suppress(ConnectionResetError):
                assert stranger.recv(1) == b""
    finally:
        for one in [*strangers, *(peer for peers in each for peer in peers.values())]:
            one.close()


@pytest.mark.parametrize(
    ("of_second", "said"),
    [
        ({"--seed": 1, "ratings": "a" * 50}, []),
        ({"--seed": 2, "ratings": "a" * 50}, ["differ in --seed: 2 and 1"]),
        ({"--seed": 1, "ratings": "a" * 51}, ["differ in ratings: "]),
        ({"--seed": 1}, ["differ in ratings: None and "]),
    ],
)
def test_workers_that_differ_are_told_in_what(connect, of_second, said):
    reasons = []
    watch = SimpleNamespace(leave=reasons.append)
    teams = [Team(links, watch) for links in connect(2)]
    at_once(Team.compare, teams, [{"--seed": 1, "ratings": "a" * 50}, of_second])
    host = socket.gethostname()
    assert len(reasons) == 2 * len(said)  # each says so
    for reason, words in zip(reasons, said * 2):
        assert reason.startswith(f"worker 1 at {host} and worker 0 at {host} {words}")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--loss", "rmse", "--wd", "0"], "the rmse loss takes the root over all"),
        (["--optimizer", "LAMB"], "LAMB needs weights as a whole"),
    ],
)
def test_a_recipe_that_is_for_one_process_is_refused_before_anything_starts(
    flags, message
):
    with pytest.raises(ClusterError, match=message):
        train_command(["--workers", "2", *flags])


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_columns_are_shared_out_by_their_ratings_each_worker_having_one(size):
    rng = onp.random.default_rng(0)
    dense = (rng.random((30, 7)) < [0.9, 0, 0, 0, 0, 0.1, 0.1]).astype(onp.float32)
    rows = sp.csr_matrix(dense)
    teams = [SimpleNamespace(rank=rank, size=size) for rank in range(size)]
    portions = [Portion(team, rows) for team in teams]
    assert sp.hstack([one.rows for one in portions]).toarray() == pytest.approx(dense)
    assert all(one.start < one.stop for one in portions)
    if size == 2:
        assert portions[0].stop == 2  # it has most of the ratings
        # Where there are many steps, what counts is the columns.
        assert Portion(teams[0], rows, 1000).stop == 4
    with pytest.raises(ClusterError, match="7 columns cannot be shared out over 8"):
        Portion(SimpleNamespace(rank=0, size=8), rows)


@pytest.mark.parametrize("block", [6, 30, 10_000])
def test_workers_draw_the_weights_of_one_process_piece_by_piece(monkeypatch, block):
    monkeypatch.setattr(portion, "_DRAWN", block)
    rows = sp.csr_matrix(onp.ones((3, 7), onp.float32))

    def drawn(rank=None):
        start, net = mx.init.Normal(0.01), AutoRec(5, 7)
        seed_everything(0)
        if rank is None:
            net.initialize(start)
        else:
            own = Portion(SimpleNamespace(rank=rank, size=2), rows)
            net = AutoRec(5, own.rows.shape[1])
            own.initialize(net, start, [mx.cpu()])
        net(mx.np.zeros((1, net.decoder._units)))
        layers = net.encoder, net.decoder
        weights = [layer.weight.data().asnumpy() for layer in layers]
        return *weights, mx.np.random.uniform(0, 1, (4,)).asnumpy()

    encoder, decoder, later = drawn()
    first, second = drawn(0), drawn(1)
    onp.testing.assert_array_equal(onp.hstack([first[0], second[0]]), encoder)
    onp.testing.assert_array_equal(onp.vstack([first[1], second[1]]), decoder)
    for found in (first, second):
        onp.testing.assert_array_equal(found[2], later)


@pytest.mark.parametrize("has_room", [True, False])
@pytest.mark.parametrize("cold", ["mean", "biases"])
def test_a_worker_keeps_the_ratings_of_all_in_a_file(monkeypatch, has_room, cold):
    if not has_room:
        monkeypatch.setattr("d2l_autorec.fast.arrays.TemporaryFile", full)
    dense = onp.random.default_rng(0).integers(0, 6, (9, 7)).astype(onp.float32)
    dense[:, 2] = dense[4] = 0
    train_mat, cells = sp.csr_matrix(dense), sp.csr_matrix(onp.ones((9, 7)))
    recipe = Recipe(
        **{"num_hidden": 3, "kind": "user", "standardize": True},
        **{"cold": cold, "clip": True, "num_epochs": 1, "dropout": 0.0},
    )

    def predicted(team):
        seed_everything(0)
        parts = Parts(train_mat.copy())
        training = Training(recipe, parts, [mx.cpu()], 0, team=team)
        list(training.epochs())
        return parts.train_mat, training.predict(cells)[0]

    kept, expected = predicted(None)
    aside, found = predicted(Team(Links(0, {}, lose), None))
    onp.testing.assert_allclose(found, expected, rtol=1e-5)
    for name in ("data", "indices", "indptr"):
        onp.testing.assert_array_equal(getattr(aside, name), getattr(kept, name))
    assert [in_a_file(aside.data), in_a_file(aside.indices)] == [has_room] * 2


def full():
    raise OSError("no space left on device")


def in_a_file(array):
    while isinstance(array, onp.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)


# Meets the others, adds up once, and then says so; goes on for ever or ends.
ADDING = """
import sys
import numpy as np
from d2l_autorec.cluster import join

team = join("dist_sync")
while True:
    team.add_up(np.ones(3, np.float32))
    print("added", flush=True)
    if sys.argv[1] == "once":
        break
"""


def test_a_worker_that_dies_ends_the_others_with_a_message(make_cluster):
    cluster = make_cluster(DMLC_NUM_WORKER="3")
    # In the middle of a step, at the end, and the one that dies.
    turns = {"worker 0": "always", "worker 1": "once", "worker 2": "always"}
    for name in ("scheduler", "server", *turns):
        cluster.start(name, "-c", ADDING, turns.get(name, ""))
    for name in turns:
        assert cluster.processes[name].stdout.readline() == "added\n"
    cluster.processes["worker 2"].kill()
    for name in ("scheduler", "server", "worker 0", "worker 1"):
        code, out, err = cluster.end(name)
        assert code == 1
        assert err == (
            f"\nerror: {name.split()[0]}: a worker at 127.0.0.1 has gone; "
            "the training cannot go on\n"
        )


def serving(process):
    return process.stdout.readline().endswith(": serves until the training is over\n")


@pytest.mark.parametrize(
    ("victim", "who"),
    [("scheduler", "the scheduler"), ("server 1", "a server at 127.0.0.1")],
)
def test_a_death_before_all_have_met_ends_those_who_wait(make_cluster, victim, who):
    cluster = make_cluster(DMLC_NUM_SERVER="2")
    names = ["scheduler", "server 0", "server 1"]
    for name in names:
        cluster.start(name, *WAITING)
    for name in names:
        assert serving(cluster.processes[name])
    cluster.processes[victim].kill()
    names.remove(victim)
    for name in names:
        code, _, err = cluster.end(name)
        assert code == 1
        assert f"{who} has gone; the training cannot go on" in err


@pytest.mark.parametrize(
    ("role", "message"),
    [
        ("scheduler", "0 of 1 servers and 0 of 2 workers were there after 1 s"),
        ("server", "the scheduler was not there after 1 s"),
    ],
)
def test_who_waits_in_vain_ends_with_a_message(make_cluster, role, message):
    cluster = make_cluster(D2L_AUTOREC_MEETING_TIMEOUT="1")
    cluster.start(role, *WAITING)
    code, _, err = cluster.end(role)
    assert (code, err) == (1, f"\nerror: {role}: {message}\n")


def test_one_too_many_is_told_and_the_others_go_on(cluster):
    for name in ("scheduler", "server 0"):
        assert serving(cluster.start(name, *WAITING))
    cluster.start("server 1", *WAITING)
    code, _, err = cluster.end("server 1")
    assert (code, err) == (1, "\nerror: server: there are 1 servers already\n")
    assert cluster.processes["server 0"].poll() is None
    assert cluster.processes["scheduler"].poll() is None


def test_a_stranger_at_the_port_is_let_go(cluster):
    assert serving(cluster.start("scheduler", *WAITING))
    address = ("127.0.0.1", cluster.port + 1)
    silent = socket.create_connection(address, LIMIT)
    with silent, socket.create_connection(address, LIMIT) as loud:
        loud.sendall(b"GET / HTTP/1.1\r\n")
        assert loud.recv(1) == b""
    assert serving(cluster.start("server", *WAITING))
    assert cluster.processes["scheduler"].poll() is None


@pytest.mark.parametrize("offset", [0, 1])
def test_a_scheduler_says_that_a_port_is_taken(cluster, offset):
    with socket.create_server(("127.0.0.1", cluster.port + offset)):
        cluster.start("scheduler", "-m", "d2l_autorec.train", "--kvstore", "dist_sync")
        code, out, err = cluster.end("scheduler")
    assert (code, out) == (1, "")
    assert err.startswith("error: the scheduler cannot listen: Address already in use")
    assert err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "order",
    [
        ("scheduler", "worker 0", "server", "worker 1"),
        ("worker 0", "server", "worker 1", "scheduler"),
    ],
)
def test_processes_may_start_long_after_each_other(make_cluster, order):
    cluster = make_cluster(PS_HEARTBEAT_TIMEOUT="5")
    for name in order:
        cluster.start(name, *TRAINING, "[{}]")
        time.sleep(10)
    for code, _, err in cluster.ends(order).values():
        assert (code, err) == (0, "")


# A worker without MXNet, to see it end. As it is freed it would wait for the others.
ENDING = """
import atexit, threading
from d2l_autorec.cluster import processes

class Forever:
    @property
    def handle(self):
        threading.Event().wait()

watch = processes.Watch()
processes.connect(watch)
end = processes.Deadline(watch, "not all workers had finished")
"""
# The others are in the middle of a step, so this one has to go.
FAILING = "atexit.register(processes.part, Forever(), watch, end); 1 / 0"
# The others do not finish.
FINISHED = "atexit.register(lambda: end.__enter__() or Forever().handle)"


def test_an_error_in_a_worker_ends_the_others(cluster):
    assert serving(cluster.start("scheduler", *WAITING))
    cluster.start("worker", "-c", ENDING + FAILING)
    code, _, err = cluster.end("worker")
    assert code == 1
    assert err.endswith("ZeroDivisionError: division by zero\n")
    code, _, err = cluster.end("scheduler")
    assert "a worker at 127.0.0.1 has gone; the training cannot go on" in err


def test_a_worker_waits_for_the_others_to_finish_with_a_limit(make_cluster):
    cluster = make_cluster()
    assert serving(cluster.start("scheduler", *WAITING))
    cluster.settings["D2L_AUTOREC_MEETING_TIMEOUT"] = "1"
    cluster.start("worker", "-c", ENDING + FINISHED)
    for name in ("worker", "scheduler"):
        code, _, err = cluster.end(name)
        message = "not all workers had finished after 1 s"
        assert (code, err) == (1, f"\nerror: {name}: {message}\n")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("victim", ["scheduler", "server", "worker 0", "worker 1"])
def test_a_death_at_any_moment_ends_the_others_and_spares_the_folder(
    make_cluster, small_data, tmp_path, victim, seed
):
    draw = random.Random(f"{victim} {seed}")
    cluster = make_cluster(D2L_AUTOREC_MEETING_TIMEOUT="20")
    names = ["scheduler", "server", "worker 0", "worker 1"]
    draw.shuffle(names)
    # Some die before the others have met, and most while they train and save.
    seconds = draw.choice([0, draw.uniform(0, 5), draw.uniform(5, 15)])
    print(f"{victim} dies after {seconds:.2f} s, of {names}")
    folder = tmp_path / "model"
    train = ["-m", "d2l_autorec.train", "--kvstore", "dist_sync", "--quiet"]
    train += ["-k", "8", "-b", "16", "-e", "100000", "--save", str(folder)]
    for name in names:
        cluster.start(name, *train)
    killer = threading.Timer(seconds, cluster.processes[victim].kill)
    limit = threading.Timer(seconds + 40, cluster.kill)  # twice that of the meeting
    for timer in (killer, limit):
        timer.start()
    ends = cluster.ends(names)
    for timer in (killer, limit):
        timer.cancel()
    names.remove(victim)
    for name in names:
        code, _, err = ends[name]
        assert code == 1, (name, code, err)
        assert err.startswith(f"\nerror: {name.split()[0]}: "), err
        assert err.count("\n") == 2, err
    if (folder / "model.json").exists():
        trained = len(Checkpoint.open(folder).history)
        more = ["-m", "d2l_autorec.train", "--resume", folder, "-e", trained + 1]
        done = subprocess.run(
            [sys.executable, *map(str, more)], capture_output=True, timeout=LIMIT
        )
        assert done.returncode == 0, done.stderr
        assert len(Checkpoint.open(folder).history) == trained + 1


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="asks Linux")
def test_a_machine_that_is_silent_counts_as_lost_in_time(monkeypatch):
    from d2l_autorec.cluster.processes import _hold

    monkeypatch.setenv("PS_HEARTBEAT_TIMEOUT", "60")
    with socket.socket() as peer:
        _hold(peer)
        assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        first, between, times = (
            peer.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
        )
    assert first + between * times == 60


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
        ("DMLC_PS_ROOT_PORT", "65535", "DMLC_PS_ROOT_PORT is above 65534"),
        ("PS_HEARTBEAT_TIMEOUT", "1m", "PS_HEARTBEAT_TIMEOUT is '1m'; it is a whole"),
        (
            *("D2L_AUTOREC_MEETING_TIMEOUT", "0"),
            "D2L_AUTOREC_MEETING_TIMEOUT is '0'; it is a whole",
        ),
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
        timeout=LIMIT,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: DMLC_ROLE is not set; it is one of")
    assert done.stderr.count("\n") == 1
