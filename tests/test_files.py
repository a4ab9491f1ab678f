"""Where results go: files, links, pipes and devices, and disks that are full."""

import errno
import os
import resource
import socket
import stat
import threading
from contextlib import contextmanager

import pytest
from matplotlib.figure import Figure

from d2l_autorec.commands import cli
from d2l_autorec.commands.compare import write_between_markers
from d2l_autorec.serving import replacing, save_figure, save_text


@contextmanager
def open_end(pipe):
    """Read from a pipe what is written to it meanwhile."""
    found = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    yield found
    reader.join(timeout=60)


def test_a_new_file_is_as_open_as_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        save_text("new", tmp_path / "f")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


@pytest.mark.parametrize("mode", [0o600, 0o444, 0o755], ids=oct)
def test_a_file_keeps_its_mode(tmp_path, mode):
    (tmp_path / "f").write_text("old")
    (tmp_path / "f").chmod(mode)
    save_text("new", tmp_path / "f")
    assert (tmp_path / "f").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == mode
    assert [f.name for f in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("there", [True, False], ids=["there", "dangling"])
def test_a_link_is_followed(tmp_path, there):
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "f"
    if there:
        target.write_text("old")
    (tmp_path / "link").symlink_to("folder/f")
    save_text("new", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert target.read_text() == "new"
    assert [f.name for f in tmp_path.rglob("*") if f.is_file()] == ["link", "f"]


def test_a_device_is_written_to(tmp_path):
    # A terminal: nobody else needs it, and beside it no file can be made.
    try:
        terminal, device = os.openpty()
        path = os.ttyname(device)
    except OSError as error:
        pytest.skip(f"needs a terminal: {error}")
    try:
        (tmp_path / "link").symlink_to(path)
        for name in (path, tmp_path / "link"):
            save_text("new\n", name)
            assert stat.S_ISCHR(os.stat(name).st_mode)
            assert os.read(terminal, 100) == b"new\r\n"
        assert (tmp_path / "link").is_symlink()
    finally:
        os.close(terminal)
        os.close(device)


def test_a_pipe_is_written_to(tmp_path):
    pipe = tmp_path / "pipe.pdf"  # whose writer goes back and forth
    os.mkfifo(pipe)
    with open_end(pipe) as found:
        save_figure(Figure(), pipe)
    assert found[0].startswith(b"%PDF") and b"%%EOF" in found[0]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    with open_end(pipe) as found:
        write_between_markers("report", pipe)
    assert b"\n\nreport\n\n" in found[0]


def test_standard_output_is_written_where_it_is(tmp_path, run):
    """Replaced, or opened anew, it would lose what was printed before or after."""
    script = (
        "from d2l_autorec.serving import save_text\n"
        "print(1); save_text('2\\n', 'link'); print(3)"
    )
    (tmp_path / "link").symlink_to("/proc/self/fd/1")  # as /dev/stdout is
    with (tmp_path / "f").open("w") as out:
        assert run("-c", script, stdout=out, cwd=tmp_path)[0] == 0
    assert (tmp_path / "f").read_text() == "1\n2\n3\n"


@contextmanager
def full_disk():
    """No file may have any byte."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "save", [save_text, lambda _, file: save_figure(Figure(), file)]
)
def test_a_full_disk_is_named_and_changes_nothing(tmp_path, save):
    file = tmp_path / "f.png"
    file.write_text("old")
    with pytest.raises(OSError, match="File too large") as caught, full_disk():
        save("new", file)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(file))
    assert file.read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["f.png"]


def test_what_fails_half_way_changes_nothing(tmp_path):
    (tmp_path / "f").write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "f") as temporary:
        temporary.write_text("new")
        raise ZeroDivisionError
    assert (tmp_path / "f").read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["f"]


@pytest.mark.filterwarnings("error")
def test_any_name_is_a_title(tmp_path):
    figure = Figure()
    figure.suptitle("$평점_{.csv", parse_math=False)
    save_figure(figure, tmp_path / "f.png")
    assert (tmp_path / "f.png").exists()


@pytest.mark.parametrize("kind", ["file", "new", "device", "folder"])
def test_what_cannot_be_written_is_said_before_the_work(tmp_path, monkeypatch, kind):
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    file = os.devnull if kind == "device" else tmp_path / kind
    check = cli.output_folder if kind == "folder" else cli.output_file
    before = [*tmp_path.rglob("*")]
    assert str(check(str(file))) == str(file)
    assert [*tmp_path.rglob("*")] == before

    def read_only(place, *args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), place)

    # Root is allowed all that can be asked for.
    system = ("access", lambda *_: False) if kind == "device" else ("open", read_only)
    monkeypatch.setattr(os, *system)
    with pytest.raises(cli.argparse.ArgumentTypeError, match="cannot be written"):
        check(str(file))


def test_what_is_no_place_for_a_file_is_said_before_the_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink("loop", "loop")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
    for name in ("loop", "socket", "socket/f", 300 * "f"):
        with pytest.raises(cli.argparse.ArgumentTypeError, match=f"^{name}"):
            cli.output_file(name)
