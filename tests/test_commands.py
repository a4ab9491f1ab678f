"""What holds for all commands: flags, files, streams, and errors in one line."""

import builtins
import errno
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from d2l_autorec.ratings import NAMES
from d2l_autorec.serving import Checkpoint

COMMANDS = ["train", "describe", "compare", "recommend", "demo", "paper"]
DIGITS = 5000 * "9"
# Of each command that writes results: flags that make it short.
SHORT = {
    "train": ["--num-hidden", "4", "--num-epochs", "1", "--quiet"],
    "compare": ["--models", "mean", "--seeds", "0", "--quiet"],
}
each_short = pytest.mark.parametrize("name", SHORT)
BAD_FLAGS = [
    # Numbers.
    ("train", "--test-ratio 1", "'1' is not between 0 and 1"),
    ("train", "--test-ratio nan", "'nan' is not between 0 and 1"),
    ("train", "--valid-ratio 0", "'0' is not between 0 and 1"),
    ("train", "--num-epochs 0", "'0' is not a whole number from 1"),
    ("train", "-k 2.5", "'2.5' is not a whole number from 1"),
    ("train", "-k 8 0", "'0' is not a whole number from 1"),
    ("train", "-k \uff11\uff10", "' is not a whole number from 1"),
    ("train", "--lr 0", "'0' is not a number above 0"),
    ("train", "--lr inf", "'inf' is not a number above 0"),
    ("train", "--lr 0.0_1", "'0.0_1' is not a number above 0"),
    ("train", "--wd -1", "'-1' is not a number from 0"),
    ("train", "--dropout 1", "'1' is not from 0 to below 1"),
    ("train", "--input-dropout 1", "'1' is not from 0 to below 1"),
    ("train", "--seed -1", "'-1' is not a whole number from 0"),
    ("train", "--seed 1_0", "'1_0' is not a whole number from 0"),
    ("train", f"--seed {DIGITS}", "' is not a whole number from 0"),
    ("train", "--members 0", "'0' is not a whole number from 1"),
    ("train", "--patience 0", "'0' is not a whole number from 1"),
    ("train", "--workers 0", "'0' is not a whole number from 1"),
    ("train", "--pretrain-epochs -1", "'-1' is not a whole number from 0"),
    ("train", "--batch-size every", "'every' is not a whole number from 1"),
    ("train", "--cold zero", "'zero' is not a number"),
    ("train", "--cold nan", "'nan' is not a number"),
    ("compare", "--seeds 4-0", "'4-0' is not 1 to 1,000 seeds"),
    ("compare", "--seeds 0-2147483647", "'0-2147483647' is not 1 to 1,000 seeds"),
    ("compare", f"--seeds 0-{DIGITS}", "' is not a whole number from 0"),
    ("compare", "--seeds 0-\uff11", "' is not a whole number from 0"),
    ("compare", "--seeds x", "'x' is not a seed or a range"),
    ("compare", "--seeds 0-", "'0-' is not a seed or a range"),
    ("compare", "--seeds -1", "'-1' is not a seed or a range"),
    ("recommend", "--model m --user 1 -n 0", "'0' is not a whole number from 1"),
    ("recommend", "--model m --user 1 --min-ratings 0", "'0' is not a whole number"),
    ("paper", "--splits 0", "'0' is not a whole number from 1"),
    ("paper", "--cold zero", "'zero' is not a number"),
    ("demo", "--model m --port 65536", "'65536' is not a port from 0 to 65535"),
    # Words.
    ("train", "--preset mine", "'mine' is not one of book, paper, best, popularity"),
    ("train", "--activation softmax", "invalid choice: 'softmax'"),
    ("train", "--split-mode time", "invalid choice: 'time'"),
    ("train", "--duplicates first", "invalid choice: 'first'"),
    ("train", "--devices tpu", "'tpu' is not cpu, gpu, or a list"),
    ("train", "--devices cpu:\uff11", "' is not cpu, gpu, or a list"),
    ("train", f"--devices cpu:{DIGITS}", "' is not cpu, gpu, or a list"),
    ("train", "--devices cpu,cpu:1,cpu:00", "names a device twice"),
    ("train", "--epochs 3", "unrecognized arguments: --epochs"),
    ("compare", "--splits u1", "'u1' is not random, seq-aware, users, u1-u5, or such"),
    ("compare", "--splits 1-fold", "'1-fold' is not random"),
    ("compare", "--models svd", "'svd' is not one of mean, biases, mf, biased-mf"),
    ("compare", "--models book:lr=0", "book:lr='0' is not a number above 0"),
    ("recommend", "", "the following arguments are required: --model"),
    ("recommend", "--model m", "--user --users --all-users --new-user --like --pairs"),
    ("paper", "--only all", "'all' is not one of item, user"),
    # Files.
    ("train", "--plot nowhere/curve.png", "nowhere is not a folder"),
    ("train", "--plot curve.txt", "does not end in .png, .svg or .pdf"),
    ("train", "--json .", ". is a folder, not a file"),
    ("train", "--save /dev/null/m", "/dev/null is not a folder"),
    ("compare", "--plot chart.txt", "does not end in .png, .svg or .pdf"),
    ("compare", "--json no/such/r.json", "no/such is not a folder"),
    ("compare", "--markdown no/such/r.md", "no/such is not a folder"),
    ("compare", "--predictions .", ". is a folder, not a file"),
    ("recommend", "--model m --all-users --output .", ". is a folder, not a file"),
    ("paper", "--out /dev/null", "/dev/null is not a folder"),
    # A variable that is not set.
    ("train", ["--ratings", ""], "--ratings: is empty; is a variable not set?"),
    ("train", "--data-dir=", "argument --data-dir: is empty; is a variable not set?"),
    ("compare", ["--models", ""], "--models: is empty; is a variable not set?"),
    ("compare", "--dataset=", "--dataset: is empty; is a variable not set?"),
    ("paper", "--out=", "--out: is empty; is a variable not set?"),
    ("recommend", ["--model", ""], "--model: is empty; is a variable not set?"),
    ("demo", "--model=", "--model: is empty; is a variable not set?"),
    # Settings of a recipe.
    ("train", "--pretrain-epochs 3", "needs several hidden layers, the first as large"),
    ("train", "--pretrain-epochs 3 -k 8 4", "needs several hidden layers"),
    ("train", "--residual --output sigmoid", "residual needs the identity output"),
    ("train", "--optimizer rprop", "rprop needs all rows in one batch"),
    ("train", "--preset paper --optimizer Rprop", "rprop needs all rows in one batch"),
    ("train", "--preset best --loss book", "the book loss needs a weight decay of its"),
    # Lists.
    ("train", "--preset ease", "--preset ease needs --feedback implicit"),
    ("train", "--min-rating 4", "--min-rating needs --feedback implicit"),
    ("train", "--split-mode users", "--split-mode users needs --feedback implicit"),
    ("train", "--feedback implicit --preset paper", "'paper' is not one of popularity"),
    ("train", "--feedback implicit --preset ease:x=1", "ease has no setting 'x'"),
    ("train", "--feedback implicit --lr 0.1", "behind the name: mult-vae:lr=..."),
    ("train", "--feedback implicit --resume m", "--resume takes these from the model"),
    ("compare", "--at 5", "--at needs --feedback implicit"),
    ("compare", "--feedback implicit --at 0", "'0' is not a whole number from 1"),
    ("compare", "--feedback implicit --models mf", "'mf' is not one of popularity"),
    ("compare", "--feedback implicit --splits u1-u5", "u5 are those of ml-100k's ra"),
    ("train", "--preset paper --loss book", "--preset paper is the paper's lambda"),
    ("train", "--preset paper --loss rmse", "the rmse loss needs a weight decay"),
    ("train", "--loss paper", "(--wd): that of --preset book is the optimizer's"),
    # Flags that do not go together.
    *(
        (name, flags, message)
        for name in ("train", "compare")
        for flags, message in (
            ("--ratings f --dataset ml-1m", "--ratings and --dataset exclude each oth"),
            ("--ratings f --data-dir d", "--ratings and --data-dir exclude each other"),
            ("--columns 1,2,3", "--columns needs --ratings"),
            ("--duplicates error", "--duplicates needs --ratings"),
            ("--test-ratings f", "--test-ratings needs --ratings"),
            ("--json f.svg --plot ./f.svg", "--plot and --json name one file"),
            ("--ratings f --json f", "--ratings and --json name one file"),
        )
    ),
    ("train", "--encoding latin-1", "--encoding needs --ratings or --titles"),
    ("train", "--split-mode u1 --ratings f", "u1 to u5 are those of ml-100k"),
    ("train", "--split-mode seq-aware --test-ratio 0", "--test-ratio is not for"),
    (
        "train",
        "--ratings f --test-ratings g --test-ratio 0.2 --split-mode random",
        "--test-ratings and --split-mode, --test-ratio exclude each other",
    ),
    ("train", "--refit", "--refit needs a validation part (--valid-ratio 0.1)"),
    ("train", "--patience 3", "--patience needs a validation part"),
    ("train", "--overwrite", "--overwrite needs --save"),
    ("train", "--titles f", "--titles needs --save"),
    ("train", "--save m --title-columns a,b", "--title-columns needs --titles"),
    ("train", "--save m --json m", "--save and --json name one file"),
    ("train", "--resume m --lr 0.002", "takes these from the model folder: --lr"),
    ("train", "--resume m --no-clip", "takes these from the model folder: --clip"),
    ("train", "--resume m --preset best --save m", "model folder: --preset, --save"),
    ("compare", "--ratings f --test-ratings g --splits 5-fold", "exclude each other"),
    ("compare", "--markdown f --predictions f", "name one file"),
    ("recommend", "--model m --user 1 --pairs f", "not allowed with argument"),
    ("recommend", "--model m --pairs f --json", "--pairs and --json exclude each"),
    ("recommend", "--model m --all-users --json", "--all-users and --json exclude"),
    ("recommend", "--model m --user 1 --output f", "--output needs --pairs, --users"),
    ("recommend", "--model m --pairs f --min-ratings 2", "--min-ratings needs --user,"),
    ("recommend", "--model m --pairs f --titles t", "--titles needs --user, --new"),
    ("recommend", "--model m --user 1 --columns a", "--columns needs --pairs, --users"),
    ("recommend", "--model m --user 1 --title-columns a,b", "needs --titles"),
    ("recommend", "--model m --pairs f --output f", "--pairs and --output name one"),
]


@pytest.mark.parametrize(("name", "flags", "message"), BAD_FLAGS)
def test_a_bad_flag_is_one_line_and_exit_status_2(
    command, tmp_path, monkeypatch, name, flags, message
):
    monkeypatch.chdir(tmp_path)
    argv = flags.split() if isinstance(flags, str) else flags
    code, out, err = command(name, *argv)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"python -m d2l_autorec.{name}: error: ")
    assert message in err
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("train", "--dataset ml-99", "unknown data set 'ml-99'; there are ml-100k, "),
        ("train", "--data-dir nowhere", "nowhere: no such folder"),
        ("train", "--test-ratio 1e-9", "the random split leaves the test part empty"),
        ("train", "--devices gpu", "no device gpu: MXNet sees 0 GPU"),
        ("train", "--lr 1e30 -e 3 -b 16", "the training loss is"),
        ("compare", "--data-dir nowhere", "nowhere: no such folder"),
        ("train", "--dataset synthetic-100k --split-mode u1", "-100k has none"),
        ("compare", "--splits u1-u5", "u1.base: no such file"),
        (
            "compare",
            "--dataset synthetic-100k --splits u1-u5",
            "the folds u1-u5 are ml-100k's; synthetic-100k has none",
        ),
        ("recommend", "--model none --user 1", "none: holds no model"),
        ("demo", "--model none --port 0", "none: holds no model"),
    ],
)
def test_what_goes_wrong_is_one_line_and_exit_status_1(
    small_data, command, tmp_path, monkeypatch, name, flags, message
):
    monkeypatch.chdir(tmp_path)
    code, _, err = command(name, *SHORT.get(name, []), *flags.split())
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("error: ") and message in err
    assert [file.name for file in tmp_path.iterdir()] == ["data"]


@each_short
def test_ratings_that_are_all_equal_are_refused(command, tmp_path, name):
    file = tmp_path / "seen.csv"
    file.write_text("".join(f"{n % 9},{n % 7},1\n" for n in range(63)))
    asked = "--ratings", file, "--feedback", "explicit"
    code, out, err = command(name, *SHORT[name], *asked)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "seen.csv: all ratings are 1, so there is nothing to predict; " in err


def test_help_answers_without_mxnet_and_names_flags_and_data_sets(run):
    script = f"""
import sys
from importlib import import_module
for name in {COMMANDS}:
    try: import_module(f"d2l_autorec.{{name}}").main(["--help"])
    except SystemExit as stopped: assert stopped.code == 0
    assert "mxnet" not in sys.modules
    assert name == "paper" or not {{"numpy", "pandas"}} & set(sys.modules), name
"""
    code, out, err = run("-c", script, env={**os.environ, "COLUMNS": "1000"})
    assert (code, err, out.count("usage: ")) == (0, "", len(COMMANDS))
    for words in ("--dataset", "default: 0.002", "(default: 0)", "--quiet", *NAMES):
        assert words in out


def test_a_training_imports_no_pandas(run, small_folder):
    script = """
import sys
from d2l_autorec.train import main
main(sys.argv[1:])
assert "numpy" in sys.modules and "pandas" not in sys.modules
"""
    flags = ["-k", "2", "-e", "1", "--valid-ratio", "0.2", "--preset", "paper"]
    asked = ["--dataset", "ml-100k", "--data-dir", small_folder, "--quiet"]
    code, out, err = run("-c", script, *flags, *asked)
    assert (code, err, "recall@10" in out) == (0, "", True)


# Files.


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        *(("train", flag) for flag in ("--json", "--plot", "--save")),
        *(("compare", flag) for flag in ("--json", "--plot")),
        *(("compare", flag) for flag in ("--markdown", "--predictions")),
    ],
)
def test_generated_ratings_replace_no_result(offline, command, tmp_path, name, flag):
    kept = place = tmp_path / "kept.png"
    more = []
    if flag == "--save":
        kept, place, more = tmp_path / "autorec.safetensors", tmp_path, ["--overwrite"]
        asked = ["--dataset", "synthetic-100k", "--save", tmp_path]
        assert command(name, *SHORT[name], *asked)[0] == 0
    else:
        kept.write_text("<!-- compare:begin -->\nreal\n<!-- compare:end -->\n")
    before = kept.read_bytes()
    code, out, err = command(name, *SHORT[name], flag, place, *more)
    assert (code, "RMSE" in out) == (1, False)
    said = f"{kept} is there, and results of generated ratings replace it only with"
    assert said in err.splitlines()[-1]
    assert kept.read_bytes() == before


@each_short
def test_generated_ratings_are_said_and_go_into_new_files(
    offline, command, tmp_path, name
):
    flags = [*SHORT[name], "--json", tmp_path / "f.json"]
    code, out, _ = command(name, *flags)
    frame = out[out.index("!!!") : out.rindex("!!!") + 3].splitlines()
    assert {len(line) for line in frame} == {76}
    for words in ("MovieLens 100K could not", "synthetic-100k", "not comparable with"):
        assert words in " ".join(frame)
    assert "book" not in out[out.rindex("!!!") :]
    assert json.loads((tmp_path / "f.json").read_text())["dataset"] == "synthetic-100k"
    # Asked for by name, they replace a result.
    assert command(name, *flags)[0] == 1
    assert command(name, *flags, "--dataset", "synthetic-100k")[0] == 0


@each_short
def test_a_named_data_set_that_cannot_be_had_ends_the_command(offline, command, name):
    code, out, err = command(name, *SHORT[name], "--dataset", "ml-100k")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "ml-100k is not on this machine and could not be downloaded" in err
    assert "--data-dir" in err


@each_short
@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_files_of_results_are_written(small_data, command, tmp_path, name, ending):
    plot, report = tmp_path / f"f.{ending}", tmp_path / "f.json"
    code, out, err = command(name, *SHORT[name], "--plot", plot, "--json", report)
    assert (code, err) == (0, "")
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert plot.read_bytes().startswith(start)
    found = json.loads(report.read_text(), parse_constant=pytest.fail)  # no NaN
    assert {"d2l_autorec", "python", "mxnet", "numpy"} < found["versions"].keys()
    assert sorted(os.listdir(tmp_path)) == ["data", "f.json", f"f.{ending}"]


class Full(io.StringIO):
    """Unbuffered, on a disk without room."""

    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


@each_short
def test_files_are_written_where_nothing_can_be_printed(
    small_data, command, tmp_path, monkeypatch, name
):
    monkeypatch.setattr(sys, "stdout", Full())
    code, _, err = command(name, *SHORT[name], "--json", tmp_path / "f.json")
    assert (code, err) == (1, "error: No space left on device\n")
    assert (tmp_path / "f.json").stat().st_size


@each_short
def test_the_result_is_printed_where_no_file_can_be_written(
    small_data, command, tmp_path, monkeypatch, name
):
    def full(old, new):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    file = tmp_path / "f.json"
    code, out, err = command(name, *SHORT[name], "--json", file)
    assert (code, err) == (1, f"error: {file}: No space left on device\n")
    assert {"train": "train loss", "compare": "| global mean"}[name] in out


@pytest.fixture
def disk(monkeypatch):
    """One that is full from the n-th file on that is opened to be written."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    opened = {"now": 0, "full": 0}

    def counted(original):
        def call(file, mode="r", *args, **kwargs):
            if mode & os.O_CREAT if isinstance(mode, int) else set(mode) & set("wax+"):
                opened["now"] += 1
                if opened["now"] == opened["full"]:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
            return original(file, mode, *args, **kwargs)

        return call

    for module, name in ((os, "open"), (io, "open"), (builtins, "open")):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))

    @contextmanager
    def disk(number):
        opened.update(now=0, full=number)
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return disk


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        # Its writes are those of the next two together.
        pytest.param(
            *("train", [*SHORT["train"], "--save", "m", "--overwrite"]),
            marks=pytest.mark.slow,
        ),
        ("train", ["--resume", "m", "-e", "2", "--quiet"]),
        ("compare", SHORT["compare"]),
        ("recommend", ["--model", "m", "--pairs", "pairs.csv", "--output", "f.svg"]),
    ],
    ids=["train", "resume", "compare", "recommend"],
)
def test_a_disk_that_is_full_from_any_file_on(
    small_data, command, tmp_path, monkeypatch, disk, name, flags
):
    """What was there stays, or is replaced by what is whole."""

    def draw(figure, file, **options):  # as the original takes its time
        if not isinstance(file, io.BytesIO):
            open(file, "w").close()

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", draw)
    monkeypatch.chdir(tmp_path)
    if name != "recommend":
        flags = [*flags, "--json", "f.json", "--plot", "f.svg"]
    (tmp_path / "pairs.csv").write_text("user_id,item_id\n1,1\n")
    assert command("train", *SHORT["train"], "--save", "m")[0] == 0
    shutil.copytree("m", "kept")
    for number in range(1, 50):
        shutil.rmtree("m")
        shutil.copytree("kept", "m")
        for file in ("f.json", "f.svg"):
            (tmp_path / file).write_text("old")
        with disk(number):
            code, _, err = command(name, *flags)
        Checkpoint.open("m")  # the old one, or the new one whole
        assert {file.name for file in tmp_path.iterdir()} == {
            *("data", "kept", "m", "pairs.csv", "f.json", "f.svg")
        }
        if not code:
            break
        assert (code, err.count("\n")) == (1, 1)
        assert err.startswith("error: ")
        assert (tmp_path / "f.svg").read_text() == "old"  # the last to be written
    assert number > 2 and not err


@pytest.mark.parametrize(
    ("name", "flag"),
    [("train", "--plot=f.png"), ("compare", "--plot=f.svg"), ("paper", "--quick")],
)
def test_what_draws_no_picture_is_said_before_the_work(run, tmp_path, name, flag):
    code, out, err = run(
        *("-m", f"d2l_autorec.{name}", "--dataset", "synthetic-100k", flag),
        env={**os.environ, "MPLBACKEND": "x"},
        cwd=tmp_path,
    )
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: matplotlib cannot draw: ") and "MPLBACKEND" in err


# Processes.


def test_a_command_runs_as_a_process_and_ctrl_c_ends_it_with_one_line(
    small_data, start
):
    argv = ["-m", "d2l_autorec.train", "-k", 4, "--num-epochs", 10**6]
    running = start(*argv, stdout=subprocess.DEVNULL)
    seen = ""
    while "test RMSE" not in seen:
        letter = running.stderr.read(1)
        assert letter, seen
        seen += letter
    running.send_signal(signal.SIGINT)
    rest = running.stderr.read()
    assert running.wait(timeout=60) == 1
    last = rest.splitlines()[-1]
    assert last.startswith("interrupted; ") and not last.startswith("interrupted; 0 ")
    assert last.endswith(" of 1000000 epochs are lost, without --save")
    assert "Traceback" not in rest
