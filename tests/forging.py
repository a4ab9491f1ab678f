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
import random
import resource
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
from d2l_autorec.training import Blend

LIMIT = 10  # seconds a call
MIB = 2**20
KINDS = ("ids", "ratings", "optimizer", "last", "best")
VALUES = (
    *(None, True, False, 0, 1, 2, 3, 4, -1, -5, 2**31 - 1, 2**31, 2**63, -(10**400)),
    *(10**400, 0.5, -1.5, 1e-300, 1e-46, 1e38, 1e39, 1e308, float("inf"), float("nan")),
    *("", "x", "\ud800", "\0", "adam", "sgd", "rprop", "nadam", "test"),
    *("user", "item", "paper", "rmse", "mean", "tanh", "sigmoid", "relu", "cosine"),
    *([], [1], [3], [3, 2], [3, 3, 3], [[]], {}, {"a": 1}, "x" * 9999, [1] * 999),
)
INDICES = (0, 1, -1, -5, 12, 10**6, 10**9, -(10**9), 2**31 - 1, 2**62)
NUMBERS = (0.0, -1.0, 1e-45, 1e38, np.inf, np.nan, 3.0)
DTYPES = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "I32": "<i4", "I64": "<i8"}
OTHER_DTYPES = (*DTYPES, "BOOL", "BF16", "U8", "C64", "F4", "x", "", None, 3)
NAMES = ("x", "a/b", "9.9", "deeper.0.weight.mean", "__metadata__", "", "\u0000")


class NoEnd(BaseException):
    """A call takes too long; nothing that reads a folder takes it for a refusal."""


class Forgery:
    """A model folder's content, to be changed and written elsewhere."""

    def __init__(self, directory):
        directory = Path(directory)
        self.manifest = json.loads((directory / "model.json").read_text())
        del self.manifest["sha256"]
        self._signed = dict(self.manifest["files"])
        self.raw = {
            kind: next(directory.glob(f"*-{digest[:16]}.*")).read_bytes()
            for kind, digest in self.manifest["files"].items()
        }

    def ids(self):
        return json.loads(self.raw["ids"])

    def arrays(self, kind):
        """Return a file's header and its data, to be changed by name or by offset."""
        raw = self.raw[kind]
        start = 8 + int.from_bytes(raw[:8], "little")
        return json.loads(raw[8:start]), bytearray(raw[start:])

    def array(self, kind, name):
        header, data = self.arrays(kind)
        own = header[name]
        numbers = data[slice(*own["data_offsets"])]
        return np.frombuffer(numbers, DTYPES[own["dtype"]]).reshape(own["shape"]).copy()

    def put(self, kind, content):
        """Replace a file by bytes, or by what JSON can hold."""
        if not isinstance(content, (bytes, bytearray)):
            content = json.dumps(content).encode()
        self.raw[kind] = bytes(content)

    def put_header(self, kind, header, data):
        text = json.dumps(header).encode()
        self.put(kind, len(text).to_bytes(8, "little") + text + bytes(data))

    def put_array(self, kind, name, array):
        """Replace an array, add one, or remove it by None; the others follow on."""
        header, data = self.arrays(kind)
        found = {n: data[slice(*own["data_offsets"])] for n, own in header.items()}
        header.pop(name, None), found.pop(name, None)
        if array is not None:
            kinds = {dtype: kind for kind, dtype in DTYPES.items()}
            header[name] = {"dtype": kinds[array.dtype.str], "shape": array.shape}
            found[name] = array.tobytes()
        end = 0
        for one, its in found.items():
            header[one]["data_offsets"] = [end, end + len(its)]
            end += len(its)
        self.put_header(kind, header, b"".join(found.values()))

    def write(self, directory):
        """Write it, signed."""
        directory = Path(directory)
        directory.mkdir(parents=True)
        manifest = copy.deepcopy(self.manifest)
        for kind, content in self.raw.items():
            digest = hashlib.sha256(content).hexdigest()
            name = {"last": "weights", "best": "weights"}.get(kind, kind)
            ending = "json" if kind == "ids" else "safetensors"
            (directory / f"{name}-{digest[:16]}.{ending}").write_bytes(content)
            files = manifest.get("files")
            if isinstance(files, dict) and files.get(kind) == self._signed[kind]:
                files[kind] = digest  # else it is forged itself
        (directory / "model.json").write_bytes(signed(manifest))
        return directory


def signed(manifest):
    """Write a manifest with its checksum."""
    fields = json.dumps(manifest).encode()[:-1]
    digest = hashlib.sha256(fields).hexdigest()
    return fields + f',"sha256":"{digest}"}}\n'.encode()


def forge(forgery, draw):
    """Change one to three things in it; `draw` is a `random.Random`."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        kind = draw.choice(("manifest", "manifest", *KINDS))
        change = draw.random()
        # A change before may have spoilt it.
        with contextlib.suppress(ValueError, LookupError, TypeError, RecursionError):
            if kind == "manifest":
                _forge_json(forgery.manifest, draw)
            elif change < 0.1:
                forgery.put(kind, _forge_bytes(forgery.raw[kind], draw))
            elif kind == "ids":
                content = forgery.ids()
                _forge_json(content, draw)
                forgery.put(kind, content)
            elif change < 0.75:
                _forge_array(forgery, kind, draw)
            else:
                header, data = forgery.arrays(kind)
                _forge_header(header, draw)
                forgery.put_header(kind, header, data)


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


def _forge_header(header, draw):
    """Change an array's name, type, shape or place, and leave the data as they are."""
    name = draw.choice(sorted(header))
    own, change = header[name], draw.randrange(6)
    if change == 0:
        own["dtype"] = draw.choice(OTHER_DTYPES)
    elif change == 1:
        own["shape"] = draw.choice(([], [0], [1], own["shape"][::-1], [2**62, 4], [-1]))
    elif change == 2:
        place = draw.randrange(2)
        own["data_offsets"][place] += draw.choice((-4, 4, 2**40, 2**63, -(2**63)))
    elif change == 3:
        header[draw.choice(NAMES)] = header.pop(name)
    elif change == 4:
        header[draw.choice(NAMES)] = dict(own)  # two that lie on each other
    else:
        _forge_json(header, draw)


def _forge_array(forgery, kind, draw):
    """Change numbers, types or shapes, in a file that is whole."""
    name = draw.choice(sorted(forgery.arrays(kind)[0]))
    array = forgery.array(kind, name)
    change = draw.randrange(8)
    if change == 0:
        array = None
    elif change == 1:
        name = draw.choice(NAMES)
    elif change == 2:
        array = array.astype(draw.choice([*DTYPES.values()]))
    elif change == 3:
        array = np.resize(array, draw.choice(((0,), (1,), (3, 3), (500,), ())))
    elif change == 4:
        array = array[..., ::-1].copy()
    elif array.size:
        odd = NUMBERS if array.dtype.kind == "f" else INDICES
        for _ in range(draw.choice((1, 1, 5))):
            array.flat[draw.randrange(array.size)] = np.array(draw.choice(odd)).astype(
                array.dtype
            )
    forgery.put_array(kind, name, array)


def _forge_bytes(content, draw):
    content = bytearray(content)
    place = draw.randrange(len(content) + 1)
    if draw.random() < 0.5:  # where headers are
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
        content = draw.choice((b"", b"[" * 99999, b"[" + b"[]," * MIB + b"0]", b"{}"))
    else:
        for _ in range(draw.choice((1, 1, 10))):
            if content:
                content[draw.randrange(len(content))] ^= draw.randrange(1, 256)
    return bytes(content)


def _many_entries(forgery):
    """A header of 800,000 arrays without numbers."""
    own = '"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    text = ("{" + ",".join(own % n for n in range(800_000)) + "}").encode()
    forgery.put("ratings", len(text).to_bytes(8, "little") + text)


def _settings(**settings):
    return lambda f: f.manifest["recipes"][0].update(settings)


def _members(count):
    def change(forgery):
        forgery.manifest["recipes"] = forgery.manifest["recipes"][:1] * count
        forgery.manifest["weights"] = [1 / count] * count

    return change


# Small files that would take much time or memory: what is forged, and the refusal.
LARGE = {
    "layers": (_settings(num_hidden=[1] * 20_000), "20,000 layers are more than 16"),
    "members": (_members(3000), "length <= 64"),
    "recipes": (
        lambda f: f.manifest.update(recipes=[{}] * 10**6, weights=[]),
        "length <= 64",
    ),
    "entries": (_many_entries, "its header has"),
    "ids": (lambda f: f.put("ids", b"[" + b"[]," * 20 * MIB + b"0]"), "ids-"),
    "titles": (lambda f: f.put("ids", {**f.ids(), "titles": [""] * 10**6}), "titles"),
    "split": (
        lambda f: f.manifest.update(split={str(n): {} for n in range(100_000)}),
        "split",
    ),
    "history": (lambda f: f.manifest.update(history=[[]] * 10**6), "history"),
    "manifest": (lambda f: f.manifest.update(name="x" * 5 * MIB), "and may have"),
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
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
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
    """Train models of different kinds, and return their folders' contents."""
    from test_checkpoint import make_run, train

    runs = {name: make_run(**settings) for name, settings in RUNS.items()}
    for name, run in {**runs, "blend": make_blend_run()}.items():
        train(root / name, run)
    return [Forgery(folder) for folder in sorted(root.iterdir())]


def write_batch(root, honest, numbers):
    """Forge folders by number; those below 0 are the large ones."""
    for number in numbers:
        forgery = copy.deepcopy(honest[number % len(honest)])
        if number < 0:
            [*LARGE.values()][number][0](forgery)
        else:
            forge(forgery, random.Random(number))
        with contextlib.suppress(TypeError):  # the manifest has no more keys
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
