"""Forged model folders: what is in an honest one, changed, and signed anew.

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
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from d2l_autorec.errors import AutoRecError
from d2l_autorec.serving.manifest import KINDS, signed
from d2l_autorec.training import Blend

LIMIT = 10  # seconds a call
MIB = 2**20
VALUES = (
    *(None, True, False, 0, 1, 2, 3, 4, -1, -5, 2**31 - 1, 2**31, 2**63, -(10**400)),
    *(10**400, 0.5, -1.5, 1e-300, 1e-46, 1e38, 1e39, 1e308, float("inf"), float("nan")),
    *("", "x", "\ud800", "\0", "adam", "sgd", "rprop", "nadam", "test"),
    *("user", "item", "paper", "rmse", "mean", "tanh", "sigmoid", "relu", "cosine"),
    *([], [1], [3], [3, 2], [3, 3, 3], [[]], {}, {"a": 1}, "x" * 9999, [1] * 999),
)
INDICES = (0, 1, -1, -5, 12, 10**6, 10**9, -(10**9), 2**31 - 1, 2**62)
NUMBERS = (0.0, -1.0, 1e-45, 1e38, np.inf, np.nan, 3.0)
DTYPES = ("<f4", "<f8", "<i4", "<i8", "|b1", ">f4", "<f2", "<i2", "<c8", "<U3", "|O")


class Forgery:
    """A model folder's content, to be changed and written elsewhere.

    Parameters
    ----------
    directory : path
        An honest folder.
    """

    def __init__(self, directory):
        directory = Path(directory)
        self.manifest = json.loads((directory / "model.json").read_text())
        del self.manifest["sha256"]
        self._signed = dict(self.manifest["files"])
        self.raw = {
            kind: (directory / KINDS[kind].format(digest[:16])).read_bytes()
            for kind, digest in self.manifest["files"].items()
        }

    def ids(self):
        return json.loads(self.raw["ids"])

    def arrays(self, kind):
        with np.load(io.BytesIO(self.raw[kind])) as arrays:
            return dict(arrays)

    def put(self, kind, content):
        """Replace a file by bytes, arrays, or what JSON can hold."""
        if kind != "ids" and isinstance(content, dict):
            packed = io.BytesIO()
            np.savez(packed, **content)
            content = packed.getvalue()
        elif not isinstance(content, (bytes, bytearray)):
            content = json.dumps(content).encode()
        self.raw[kind] = bytes(content)

    def write(self, directory):
        """Write it, signed."""
        directory = Path(directory)
        directory.mkdir(parents=True)
        manifest = copy.deepcopy(self.manifest)
        for kind, content in self.raw.items():
            digest = hashlib.sha256(content).hexdigest()
            (directory / KINDS[kind].format(digest[:16])).write_bytes(content)
            files = manifest.get("files")
            if isinstance(files, dict) and files.get(kind) == self._signed[kind]:
                files[kind] = digest  # else it is forged itself
        (directory / "model.json").write_text(signed(manifest))
        return directory


def forge(forgery, draw):
    """Change one to three things in it; `draw` is a `random.Random`."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        kind = draw.choice(("manifest", "manifest", *KINDS))
        if kind == "manifest":
            _forge_json(forgery.manifest, draw)
        elif kind == "ids" and draw.random() < 0.7:
            with contextlib.suppress(ValueError):
                content = forgery.ids()
                _forge_json(content, draw)
                forgery.put(kind, content)
        elif kind in ("ratings", "optimizer") and draw.random() < 0.7:
            with contextlib.suppress(Exception):  # it has been made unreadable
                content = forgery.arrays(kind)
                _forge_array(content, draw)
                forgery.put(kind, content)
        else:
            forgery.put(kind, _forge_bytes(forgery.raw[kind], draw))


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
            value[place] = draw.choice(VALUES)
        return


def _forge_array(arrays, draw):
    name = draw.choice(sorted(arrays))
    array = np.array(arrays[name])
    change = draw.randrange(8)
    if change == 0:
        del arrays[name]
    elif change == 1:
        arrays[draw.choice(("x", "a/b", "9.9", "deeper.0.weight.mean"))] = array
    elif change == 2:
        arrays[name] = array.astype(draw.choice(DTYPES))
    elif change == 3:
        arrays[name] = np.resize(array, draw.choice(((0,), (1,), (3, 3), (500,), ())))
    elif change == 4:
        arrays[name] = array[..., ::-1]
    elif array.size:
        odd = NUMBERS if array.dtype.kind == "f" else INDICES
        for _ in range(draw.choice((1, 1, 5))):
            array.flat[draw.randrange(array.size)] = np.array(draw.choice(odd)).astype(
                array.dtype
            )
        arrays[name] = array


def _forge_bytes(content, draw):
    content = bytearray(content)
    place = draw.randrange(len(content) + 1)
    if draw.random() < 0.5:  # where headers are
        place = min(place, draw.randrange(200))
    change = draw.randrange(7)
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
    elif change == 4 and zipfile.is_zipfile(io.BytesIO(content)):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bomb:
            header = b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f4', 'fortran_order': False"
            bomb.writestr("train_mat.data.npy", header + bytes(30 * MIB))
        content = packed.getvalue()
    elif change == 5:
        content = draw.choice((b"", b"[" * 99999, b"[" + b"[]," * MIB + b"0]", b"{}"))
    else:
        for _ in range(draw.choice((1, 1, 10))):
            if content:
                content[draw.randrange(len(content))] ^= draw.randrange(1, 256)
    return bytes(content)


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


def work(root, first, last):
    """Forge folders by number, and say how each call on them ends."""
    pairs, new_user = write_questions(root)
    honest = [Forgery(folder) for folder in sorted((root / "honest").iterdir())]

    from d2l_autorec.commands import recommend, train  # noqa: F401

    gc.collect()
    gc.freeze()  # MXNet collects garbage with each training
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", DeprecationWarning)  # MXNet's

    def end(signum, frame):
        raise TimeoutError

    signal.signal(signal.SIGALRM, end)

    def rss():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

    for number in range(first, last):
        forgery = copy.deepcopy(honest[number % len(honest)])
        if first:
            forge(forgery, random.Random(number))
        folder = root / f"forged-{os.getpid()}-{number}"
        with contextlib.suppress(TypeError):  # the manifest has no more keys
            forgery.write(folder)
        for name, call in calls(folder, pairs, new_user):
            print(json.dumps([number, name, "begun", rss()]), flush=True)
            signal.alarm(LIMIT)
            try:
                ending = outcome(call)
            except TimeoutError:
                ending = "no end"
            except Exception:
                ending = traceback.format_exc()
            signal.alarm(0)
            print(json.dumps([number, name, ending, rss()]), flush=True)
        shutil.rmtree(folder, ignore_errors=True)


def make_blend_run():
    """Two networks of different kinds."""
    from test_checkpoint import make_run

    run = make_run()
    other = run.recipe.changed(kind="user", standardize=True, from_mean=True)
    return replace(run, recipe=Blend((run.recipe, other), (0.5, 0.25)))


def campaign(num_folders, batch):
    """Give forged folders to processes of their own; print the counts."""
    from test_checkpoint import make_run, train

    counts, peaks, failures = collections.Counter(), {}, []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for name, settings in {
            "book": {},
            "deep": {"num_hidden": (3, 2), "kind": "user", "clip": True},
            "paper": {
                "loss": "paper",
                "wd": 3.0,
                "optimizer": "adagrad",
                "cold": "mean",
            },
            "rprop": {"optimizer": "rprop", "batch_size": None, "output": "sigmoid"},
            "residual": {"kind": "user", "residual": True, "loss": "rmse"},
        }.items():
            train(root / "honest" / name, make_run(valid=name == "deep", **settings))
        train(root / "honest" / "blend", make_blend_run())
        num = len(list((root / "honest").iterdir()))
        last_one = num + num_folders
        starts = [(0, num)]  # the honest ones themselves
        starts += [(n, n + batch) for n in range(num, last_one, batch)]
        while starts:
            first, last = starts.pop(0)
            worker = subprocess.run(
                [sys.executable, __file__, "--work", root]
                + [str(first), str(min(last, last_one))],
                capture_output=True,
                text=True,
            )
            lines = [json.loads(line) for line in worker.stdout.splitlines()]
            for number, name, ending, size in lines:
                whose = "forged" if first else "honest"
                peaks[whose] = max(peaks.get(whose, 0), size)
                if ending == "begun":
                    continue
                if ending not in ("fine", "refused", "no end"):
                    failures.append((number, name, ending))
                    ending = "traceback"
                counts[whose, name, ending] += 1
            print(f"up to {lines[-1][0] if lines else first}", file=sys.stderr)
            if not lines:
                sys.exit(worker.stderr)
            if worker.returncode:
                number, name = lines[-1][:2]
                failures.append((number, name, worker.returncode, worker.stderr[-999:]))
                counts["forged", name, f"ended with {worker.returncode}"] += 1
                starts.insert(0, (number + 1, last))
    for key, count in sorted(counts.items()):
        print(*key, count)
    for failure in failures[:20]:
        print(*failure)
    print(f"peak: honest {peaks['honest']} MiB, forged {peaks['forged']} MiB")
    bad = peaks["forged"] > peaks["honest"] + 1024
    sys.exit(bool(failures) or bad or any("no end" in key for key in counts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folders", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(Path(args.work[0]), int(args.work[1]), int(args.work[2]))
    else:
        campaign(args.folders, args.batch)
