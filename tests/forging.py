"""Forged models: what is in an honest one, changed, and signed anew.

``python tests/forging.py --folders 5000`` gives each of so many to four commands, in
processes of their own, and counts how they end.
"""

import argparse
import collections
import contextlib
import copy
import gc
import hashlib
import io
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from d2l_autorec.errors import AutoRecError
from d2l_autorec.serving import MODEL_FILE
from d2l_autorec.training import Blend

LIMIT = 10  # seconds a call
MIB = 2**20
VALUES = (
    *(None, True, False, 0, 1, 2, 3, 4, -1, -5, 2**31 - 1, 2**31, 2**63, -(10**400)),
    *(10**400, 0.5, -1.5, 1e-300, 1e-46, 1e38, 1e39, 1e308, float("inf"), float("nan")),
    *("", "x", "\ud800", "\0", "adam", "sgd", "rprop", "nadam", "test"),
    *("user", "item", "paper", "rmse", "mean", "tanh", "sigmoid", "relu", "cosine"),
    *("F32", "F64", "I32", "BOOL", [2**62, 4], [-1], [0], [4, 40], 2**40, 2**62),
    *([], [1], [3], [3, 2], [3, 3, 3], [[]], {}, {"a": 1}, "x" * 9999, [1] * 999),
)
INDICES = (0, 1, -1, -5, 12, 10**6, 10**9, -(10**9), 2**31 - 1, 2**62)
NUMBERS = (0.0, -1.0, 1e-45, 1e38, np.inf, np.nan, 3.0)
DTYPES = {
    **{"F32": "<f4", "F64": "<f8", "F16": "<f2"},
    **{"I32": "<i4", "I64": "<i8", "U8": "|u1"},
}
KINDS = {dtype: kind for kind, dtype in DTYPES.items()}
NAMES = ("x", "a/b", "best.x", "last.9.9", "optimizer.x", "__metadata__", "", "\u0000")


class NoEnd(BaseException):
    """A call takes too long; nothing that reads a folder takes it for a refusal."""


class Forgery:
    """A model's content, to be changed and written elsewhere."""

    def __init__(self, directory):
        content = (Path(directory) / MODEL_FILE).read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        self.metadata = header.pop("__metadata__")
        self.model = json.loads(self.metadata["model"])
        self.arrays = {}
        for name, own in header.items():
            numbers = content[start:][slice(*own["data_offsets"])]
            array = np.frombuffer(numbers, DTYPES[own["dtype"]])
            self.arrays[name] = array.reshape(own["shape"]).copy()
        del self.arrays["sha256"]
        self.data = json.loads(self.arrays.pop("data").tobytes())
        self.header_changes, self.changes = [], []  # of a header, of all bytes

    def content(self):
        """Put it together and sign it."""
        data = as_json(self.data)
        arrays = {**self.arrays, "data": np.frombuffer(data, np.uint8)}
        arrays["sha256"] = np.zeros(32, np.uint8)
        metadata = {**self.metadata, "model": as_json(self.model).decode()}
        header, end = {"__metadata__": metadata}, 0
        for name, array in arrays.items():
            own = {"dtype": KINDS[array.dtype.str], "shape": array.shape}
            header[name] = {**own, "data_offsets": [end, end + array.nbytes]}
            end += array.nbytes
        for change in self.header_changes:
            change(header)
        text = as_json(header)
        content = len(text).to_bytes(8, "little") + text
        content += b"".join(array.tobytes() for array in arrays.values())
        for change in self.changes:
            content = change(content)
        return content[:-32] + hashlib.sha256(content[:-32]).digest()

    def write(self, directory):
        Path(directory).mkdir(parents=True)
        (Path(directory) / MODEL_FILE).write_bytes(self.content())
        return directory


def as_json(value):
    """Write JSON, or what is given as its bytes."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def forge(forgery, draw):
    """Change one to three things in it; `draw` is a `random.Random`."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        what = draw.choice(("model", "model", "data", "array", "array", "header", "x"))
        seed = draw.random()
        if what == "header":
            forgery.header_changes.append(
                lambda header, seed=seed: _forge_json(header, random.Random(seed))
            )
        elif what == "x":
            forgery.changes.append(
                lambda content, seed=seed: _forge_bytes(content, random.Random(seed))
            )
        elif what == "array":
            _forge_array(forgery.arrays, draw)
        else:
            _forge_json(getattr(forgery, what), draw)


def _forge_json(value, draw):
    """Change something somewhere in a nest of dicts and lists."""
    while True:
        places = [*value] if isinstance(value, dict) else [*range(len(value))]
        if not places:
            return
        place = draw.choice(places)
        inner = value[place]
        if isinstance(inner, (dict, list)) and inner and draw.random() < 0.8:
            value = inner
            continue
        change = draw.randrange(6)
        if change == 0:
            del value[place]
        elif change == 1 and isinstance(value, dict):
            value["new" if draw.random() < 0.5 else draw.choice(places)] = inner
        elif change == 1:
            value.insert(place, inner)
        elif change == 2 and isinstance(inner, (int, float)):
            value[place] = inner * draw.choice((-1, 2, 0.5, 1e6))
        else:
            alike = [one for one in VALUES if type(one) is type(inner)] or VALUES
            value[place] = draw.choice(draw.choice((alike, VALUES)))
        return


def _forge_array(arrays, draw):
    """Change numbers, types or shapes, in a file that is whole."""
    if not arrays:
        return
    name = draw.choice(sorted(arrays))
    array = arrays[name]
    change = draw.randrange(8)
    if change == 0:
        del arrays[name]
        return
    if change == 1:
        name = draw.choice(NAMES)
    elif change == 2:
        with np.errstate(all="ignore"):
            array = array.astype(draw.choice([*DTYPES.values()]))
    elif change == 3:
        array = np.resize(array, draw.choice(((0,), (1,), (3, 3), (500,), ())))
    elif change == 4:
        array = array[..., ::-1].copy()
    elif array.size:
        odd = NUMBERS if array.dtype.kind == "f" else INDICES
        for _ in range(draw.choice((1, 1, 5))):
            number = np.array(draw.choice(odd))
            with np.errstate(all="ignore"):
                array.flat[draw.randrange(array.size)] = number.astype(array.dtype)
    arrays[name] = array


def _forge_bytes(content, draw):
    content = bytearray(content)
    place = draw.randrange(len(content) + 1)
    if draw.random() < 0.5:  # where the header begins
        place = min(place, draw.randrange(200))
    change = draw.randrange(6)
    if change == 0:
        del content[place:]
    elif change == 1:
        del content[place : place + draw.choice((1, 4, 8, 30))]
    elif change == 2:
        content[place:place] = bytes(draw.choice((1, 4, 8, 3000)))
    elif change == 3:
        number = draw.choice((0, 1, 2**31 - 1, 2**31, 2**40, 2**63, 2**64 - 1))
        place -= place % 4
        content[place : place + 8] = number.to_bytes(8, "little")
    elif change == 4:
        content = draw.choice((b"", b"[" * 99999, b"{}", bytes(9), bytes(MIB)))
    else:
        for _ in range(draw.choice((1, 1, 10))):
            if content:
                content[draw.randrange(len(content))] ^= draw.randrange(1, 256)
    return bytes(content)


def _entries(number):
    """Add arrays to the header, without numbers."""
    own = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return lambda f: f.header_changes.append(
        lambda header: header.update({str(n): own for n in range(number)})
    )


def _settings(**settings):
    return lambda f: f.model["recipes"][0].update(settings)


def _model(**fields):
    return lambda f: f.model.update(fields)


def _members(count):
    return lambda f: f.model.update(
        recipes=f.model["recipes"][:1] * count, weights=[1 / count] * count
    )


# Small files that would take much time or memory: what is forged, and the refusal.
LARGE = {
    "layers": (_settings(num_hidden=[1] * 20_000), "20,000 layers are more than 16"),
    "members": (_members(3000), "length <= 64"),
    "recipes": (_model(recipes=[{}] * 10**6, weights=[]), "length <= 64"),
    "entries": (_entries(50_000), "of shape"),
    "many entries": (_entries(800_000), "its header has"),
    "nothing but ids": (
        lambda f: setattr(f, "data", b"[" + b"[]," * 20 * MIB + b"0]"),
        "got `array`",
    ),
    "titles": (lambda f: f.data.update(titles=[""] * 10**6), "titles"),
    "split": (
        lambda f: f.data.update(split={str(n): {} for n in range(100_000)}),
        "split",
    ),
    "history": (_model(history=[[]] * 10**6), "history"),
    "name": (_model(seed="x" * 5 * MIB), "its header has"),
}


def calls(directory, pairs, new_user):
    """Yield a name and a function for each of the four commands on a folder."""
    from d2l_autorec.commands import recommend, train

    def recommends(*flags):
        printed = io.BytesIO()
        with contextlib.redirect_stdout(io.TextIOWrapper(printed, encoding="utf-8")):
            recommend.main(["--model", str(directory), *map(str, flags)])
            sys.stdout.flush()
            if "--json" in flags:
                json.loads(printed.getvalue(), parse_constant=int)

    def resumes():
        epochs = ["--num-epochs", "3", "--quiet"]
        with contextlib.redirect_stdout(io.StringIO()):
            train.main(["--resume", str(directory), *epochs])

    yield "--user", lambda: recommends("--user", "003", "--json")
    yield "--pairs", lambda: recommends("--pairs", pairs, "--item-mean")
    yield "--new-user", lambda: recommends("--new-user", new_user, "--json")
    yield "--resume", resumes


def outcome(call):
    """Call it: 'fine', 'refused', or the traceback that a user would see."""
    try:
        call()
    except (AutoRecError, OSError) as error:
        assert "\n" not in str(error), error
        return "refused"
    except SystemExit as end:
        assert end.code == 2
        return "refused"
    return "fine"


def write_questions(directory):
    """Write the files that --pairs and --new-user take."""
    pairs, new_user = directory / "pairs.csv", directory / "new.csv"
    pairs.write_text("user_id,item_id\n003,101\n004,102\n")
    new_user.write_text("item_id,rating\n101,1\n102,2\n")
    return pairs, new_user


# The campaign.


def work(folders):
    """Call the commands on each of some folders, and say how each call ends."""
    from d2l_autorec.commands import recommend, train  # noqa: F401
    from d2l_autorec.serving import Checkpoint, load_model  # noqa: F401  take long

    pairs, new_user = write_questions(folders)
    gc.collect()
    gc.freeze()  # MXNet collects garbage with each training
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", DeprecationWarning)  # MXNet's

    def end(signum, frame):
        raise NoEnd

    def tell(*what):
        # Not that of `resource`, which a process has from the one that starts it.
        (peak,) = re.findall(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
        peak = int(peak) // 1024
        print(json.dumps([*what, peak]), flush=True)

    signal.signal(signal.SIGALRM, end)
    for folder in sorted(path for path in folders.iterdir() if path.is_dir()):
        for name, call in calls(folder, pairs, new_user):
            tell(folder.name, name, "begun")
            signal.alarm(LIMIT)
            try:
                ending = outcome(call)
            except NoEnd:
                ending = "no end"
            except Exception:
                ending = traceback.format_exc()
            signal.alarm(0)
            tell(folder.name, name, ending)
        shutil.rmtree(folder)


def make_blend_run():
    """Two networks of different kinds."""
    from test_checkpoint import make_run

    run = make_run()
    other = run.recipe.changed(kind="user", standardize=True, from_mean=True)
    return replace(run, recipe=Blend((run.recipe, other), (0.5, 0.25)))


RUNS = {
    "book": {},
    "deep": {"num_hidden": (3, 2), "kind": "user", "clip": True, "valid": True},
    "paper": {"loss": "paper", "wd": 3.0, "optimizer": "adagrad", "cold": "mean"},
    "rprop": {"optimizer": "rprop", "batch_size": None, "output": "sigmoid"},
    "residual": {"kind": "user", "residual": True, "loss": "rmse"},
}


def make_honest(root):
    """Train models of different kinds, and return their contents."""
    from test_checkpoint import make_run, train

    runs = {name: make_run(**settings) for name, settings in RUNS.items()}
    for name, run in {**runs, "blend": make_blend_run()}.items():
        train(root / name, run)
    make_lists(root / "lists")
    return [Forgery(folder) for folder in sorted(root.iterdir())]


def make_lists(directory):
    """Save a model of lists, of the same users and items."""
    from test_checkpoint import make_run

    from d2l_autorec.serving import ListRun
    from d2l_autorec.topn import EASE

    parts = make_run().parts
    ListRun(parts, EASE().fit(parts.train_mat), 0, {}).save(directory)


def write_batch(root, honest, numbers):
    """Forge folders by number; those below 0 are the large ones."""
    for number in numbers:
        forgery = copy.deepcopy(honest[number % len(honest)])
        if number < 0:
            forgery = copy.deepcopy(honest[0])
            [*LARGE.values()][number][0](forgery)
        else:
            forge(forgery, random.Random(number))
        with contextlib.suppress(TypeError):  # a header has no more keys to sort
            forgery.write(root / f"{number}")


def campaign(num_folders, size):
    """Give forged folders to processes of their own; print the counts."""
    counts, peaks, failures = collections.Counter(), collections.Counter(), []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        honest = make_honest(root / "honest")
        batches = [range(-len(LARGE), 0)]
        batches += [range(n, n + size) for n in range(0, num_folders, size)]
        for whose, numbers in [("honest", ()), *(("forged", b) for b in batches)]:
            folders = root / whose
            folders.mkdir(exist_ok=True)
            write_batch(folders, honest, numbers)
            while any(path.is_dir() for path in folders.iterdir()):
                worker = subprocess.run(
                    [sys.executable, __file__, "--work", folders],
                    capture_output=True,
                    text=True,
                )
                lines = [json.loads(line) for line in worker.stdout.splitlines()]
                for folder, name, ending, peak in lines:
                    peaks[whose] = max(peaks[whose], peak)
                    if ending not in ("begun", "fine", "refused"):
                        failures.append((folder, name, ending))
                        ending = ending if ending == "no end" else "traceback"
                    counts[whose, name, ending] += ending != "begun"
                if worker.returncode:
                    if not lines:
                        sys.exit(worker.stderr)
                    failures.append((*lines[-1], worker.returncode, worker.stderr))
                    shutil.rmtree(folders / lines[-1][0])
            print(whose, numbers, len(failures), +counts, peaks, file=sys.stderr)
    for key, count in sorted((+counts).items()):
        print(*key, count)
    for failure in failures[:20]:
        print(*failure)
    print(f"peak: honest {peaks['honest']} MiB, forged {peaks['forged']} MiB")
    sys.exit(bool(failures) or peaks["forged"] > peaks["honest"] + 200)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folders", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work)
    else:
        campaign(args.folders, args.batch)
