"""Where data sets come from: folders, archives, and servers that misbehave."""

import hashlib
import http.server
import io
import os
import threading
import zipfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conftest import real

from d2l_autorec.errors import DataError, DatasetUnavailable
from d2l_autorec.ratings import datasets, label, load_dataset, synthetic_ratings

U_DATA = b"1\t1\t5\t10\n1\t2\t3\t20\n2\t1\t4\t30\n"
U_ITEM = "1|Caf\xe9 (1990)|x\n2|Two|y\n".encode("latin-1")


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("ml-100k/u.data", U_DATA)
        archive.writestr("ml-100k/u.item", U_ITEM)
        archive.writestr("../../outside", "not to be unpacked")
    return buffer.getvalue()


GOOD = zipped()
ALTERED = GOOD[:50] + b"!" + GOOD[51:]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, no data folder, and the checksum of the archive above."""
    monkeypatch.delenv("D2L_AUTOREC_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    published = replace(
        datasets.ARCHIVES["ml-100k"], sha256=hashlib.sha256(GOOD).hexdigest()
    )
    monkeypatch.setitem(datasets.ARCHIVES, "ml-100k", published)
    return tmp_path / "cache" / "d2l_autorec"


@pytest.fixture
def serve(monkeypatch):
    """Start servers with the behaviours given; count the requests to each."""
    running = []
    requests = Counter()

    def start(*behaviours):
        urls = []
        for number, behaviour in enumerate(behaviours):

            class Handler(http.server.BaseHTTPRequestHandler):
                number_, behaviour_ = number, behaviour

                def do_GET(self):
                    requests[self.number_] += 1
                    if isinstance(self.behaviour_, int):
                        self.send_error(self.behaviour_)
                        return
                    body = self.behaviour_
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(GOOD)))
                    self.end_headers()
                    self.wfile.write(body)

                def log_message(self, *args):
                    pass

            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            threading.Thread(
                target=server.serve_forever, args=(0.01,), daemon=True
            ).start()
            running.append(server)
            urls.append(f"http://localhost:{server.server_address[1]}")
            if behaviour is None:  # refuse connections
                running.pop().shutdown()
                server.server_close()
        monkeypatch.setattr(datasets, "SERVERS", tuple(urls))
        return requests

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def kept(cache):
    return [file.name for file in cache.rglob("*")] if cache.exists() else []


def test_a_download_is_read_and_kept_as_it_came(cache, serve):
    requests = serve(GOOD, GOOD)
    ratings = load_dataset("ml-100k")
    assert ratings.data.to_numpy().tolist() == [
        [1, 1, 5, 10],
        [1, 2, 3, 20],
        [2, 1, 4, 30],
    ]
    assert ratings.titles == {1: "Café (1990)", 2: "Two"}
    assert (cache / "ml-100k.zip").read_bytes() == GOOD
    assert kept(cache) == ["ml-100k.zip"]
    load_dataset("ml-100k")
    assert requests == {0: 1}


@pytest.mark.parametrize(
    "first", [GOOD[:-60], ALTERED, b"", 404, 503, None], ids=lambda b: str(b)[:8]
)
def test_the_mirror_is_asked_when_the_first_server_fails(cache, serve, first):
    serve(first, GOOD)
    assert load_dataset("ml-100k").num_users == 2


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (ALTERED, "SHA256 hash of downloaded file"),
        (GOOD[:-60], ""),
        (503, "503 Server Error"),
        (None, "Connection refused"),
    ],
    ids=["altered", "cut off", "503", "refused"],
)
def test_nothing_is_kept_of_a_failed_download(cache, serve, behaviour, reason):
    serve(behaviour, behaviour)
    with pytest.raises(
        DatasetUnavailable, match=f"not be downloaded .*{reason}.*--data-dir"
    ) as caught:
        load_dataset("ml-100k")
    assert "\n" not in str(caught.value)
    assert kept(cache) == []


@pytest.mark.parametrize("damaged", [ALTERED, GOOD[:-60], b""])
def test_a_damaged_cached_file_is_fetched_again(cache, serve, damaged):
    serve(GOOD)
    cache.mkdir(parents=True)
    (cache / "ml-100k.zip").write_bytes(damaged)
    assert load_dataset("ml-100k").num_users == 2
    assert (cache / "ml-100k.zip").read_bytes() == GOOD


def test_a_cache_that_cannot_be_written_is_named(cache, serve):
    serve(GOOD)
    cache.parent.write_text("a file where a folder should be")
    with pytest.raises(DatasetUnavailable, match=f"downloaded to {cache} .*Not a dir"):
        load_dataset("ml-100k")


def test_a_folder_comes_before_any_download(cache, serve, tmp_path):
    requests = serve(GOOD)
    (tmp_path / "here" / "ml-100k").mkdir(parents=True)
    (tmp_path / "here" / "ml-100k" / "u.data").write_bytes(U_DATA + b"3\t1\t2\t9\n")
    ratings = load_dataset("ml-100k", tmp_path / "here")
    assert ratings.num_users == 3
    assert ratings.titles == {}
    assert not requests


@pytest.mark.parametrize("name", datasets.ARCHIVES)
def test_a_data_set_of_another_size_is_not_the_published_one(name):
    users, items, ratings = datasets.ARCHIVES[name].size
    assert label(name, (users, items, ratings)) == name
    for size in ((users, items, ratings - 1), (users - 1, items, ratings)):
        assert label(name, size) == f"{name}, not as published"
    assert label("mine.csv", (1, 2, 3)) == "mine.csv"


@pytest.mark.parametrize(
    "name",
    ["ml-100k", pytest.param("ml-1m", marks=pytest.mark.slow), "ml-latest-small"],
)
def test_the_published_sizes_are_those_of_the_real_data(name):
    real(name)
    ratings = load_dataset(name)
    size = ratings.num_users, ratings.num_items, len(ratings.data)
    assert size == datasets.ARCHIVES[name].size
    assert ratings.titles[1] == "Toy Story (1995)"


@pytest.mark.parametrize(
    ("name", "titles", "said"),
    [
        ("ml-100k", b"1|One|x\nTwo", "2: "),
        ("ml-1m", b"1::One::x\n2:Two\n3::Three::x", "2: "),
        ("ml-10m", b"1::One::x\n2::Tw\xe9::x", "2: is not utf-8"),
        ("ml-latest-small", b'movieId,title\n1,One\n2,"Two\n3,Three\n', "3: "),
    ],
)
def test_damaged_titles_are_named(tmp_path, name, titles, said):
    archive = datasets.ARCHIVES[name]
    (tmp_path / archive.folder).mkdir()
    line = {"u.data": "1\t1\t1\t1\n2\t2\t2\t2\n", "ratings.dat": "1::1::1\n2::2::2\n"}
    text = line.get(archive.ratings, "userId,movieId,rating\n1,1,1\n2,2,2\n")
    (tmp_path / archive.folder / archive.ratings).write_text(text)
    (tmp_path / archive.folder / archive.titles).write_bytes(titles)
    with pytest.raises(DataError, match=f"{archive.folder}/{archive.titles}:{said}"):
        load_dataset(name, tmp_path)


def test_a_data_set_that_is_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / "ml-100k").mkdir()
    os.mkfifo(tmp_path / "ml-100k" / "u.data")
    with pytest.raises(DataError, match="u.data: is a pipe or a device"):
        load_dataset("ml-100k", tmp_path)


def test_a_zip_in_the_data_folder_is_read(cache, serve, tmp_path, monkeypatch):
    requests = serve(ALTERED)
    (tmp_path / "ml-100k.zip").write_bytes(GOOD)
    monkeypatch.setenv("D2L_AUTOREC_DATA", str(tmp_path))
    assert load_dataset("ml-100k").num_users == 2
    assert not requests


def test_an_altered_zip_in_the_data_folder_is_refused(cache, tmp_path):
    (tmp_path / "ml-100k.zip").write_bytes(ALTERED)
    with pytest.raises(DataError, match="ml-100k.zip: is not the file.*SHA-256"):
        load_dataset("ml-100k", tmp_path)


def test_a_data_folder_that_is_none_is_named(cache, tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        load_dataset("ml-100k", tmp_path / "nowhere")


def test_an_unknown_data_set_is_named():
    with pytest.raises(DataError, match="'ml-99'.*ml-100k, ml-1m, ml-10m"):
        load_dataset("ml-99")


@pytest.mark.parametrize(
    ("name", "files", "titles"),
    [
        (
            "ml-1m",
            {
                "ratings.dat": "1::5::5::9\n2::5::3::9\n1::6::1::9\n",
                "movies.dat": "5::A: The B (1999)::Drama\n6::C\xe9::Drama\n",
            },
            {5: "A: The B (1999)", 6: "Cé"},
        ),
        (
            "ml-10m",
            {
                "ratings.dat": "1::5::5::9\n2::5::0.5::9\n1::6::1::9\n",
                "movies.dat": "5::Five::Drama\n6::Six::Drama\n",
            },
            {5: "Five", 6: "Six"},
        ),
        (
            "ml-latest-small",
            {
                "ratings.csv": "userId,movieId,rating,timestamp\n"
                "1,5,4.5,9\n2,5,3.0,9\n1,6,0.5,9\n",
                "movies.csv": 'movieId,title,genres\n5,"A, B",Drama\n6,Six,Drama\n',
            },
            {5: "A, B", 6: "Six"},
        ),
    ],
)
def test_every_movielens_format_is_read(tmp_path, name, files, titles):
    folder = tmp_path / datasets.ARCHIVES[name].folder
    folder.mkdir()
    for file, text in files.items():
        (folder / file).write_text(text, datasets.ARCHIVES[name].titles_encoding)
    ratings = load_dataset(name, tmp_path)
    assert ratings.item_ids.tolist() == [5, 6]
    assert ratings.user_ids.tolist() == [1, 2]
    assert ratings.titles == titles
    assert len(ratings.data) == 3


def test_the_synthetic_ratings_have_the_promised_shape():
    ratings = synthetic_ratings()
    assert ratings.data.shape == (100_000, 4)
    assert (ratings.num_users, ratings.num_items) == (943, 1682)
    assert not ratings.data.duplicated(["user_id", "item_id"]).any()
    assert set(ratings.data.rating) == {1, 2, 3, 4, 5}


def test_the_synthetic_ratings_follow_their_seed_and_have_long_tails():
    ratings = synthetic_ratings(1)
    assert ratings.data.equals(synthetic_ratings(1).data)
    assert not ratings.data.equals(synthetic_ratings(2).data)
    for column in ("user_id", "item_id"):
        counts = np.sort(ratings.data[column].value_counts().to_numpy())[::-1]
        assert counts[: len(counts) // 5].sum() > 0.5 * counts.sum()


NETFLIX_ROWS = [(7, 1, 3.0), (9, 1, 5.0), (9, 2, 4.0)]


@pytest.mark.parametrize(
    "files",
    [
        {
            "combined_data_1.txt": "1:\n7,3,1970-01-02\n9,5,1970-01-03\n"
            "2:\n9,4,1970-01-01"
        },
        {
            "combined_data_1.txt": "1:\r\n7,3,1970-01-02\r\n9,5,1970-01-03\r\n",
            "combined_data_2.txt": "2:\n9,4,1970-01-01\n3:\n",
        },
        {
            "mv_0000001.txt": "1:\n7,3,1970-01-02\n9,5,1970-01-03\n",
            "mv_0000002.txt": "2:\n9,4,1970-01-01\n",
        },
    ],
    ids=["one file", "two files", "a file a film"],
)
def test_netflix_is_read_from_either_of_its_layouts(files, tmp_path):
    (tmp_path / "netflix").mkdir()
    for name, text in files.items():
        (tmp_path / "netflix" / name).write_bytes(text.encode())
    titles = tmp_path / "netflix" / "movie_titles.csv"
    titles.write_text("1,2003,One, or two\n2,NULL,Zw\u00f6lf\n", "latin-1")
    ratings = load_dataset("netflix", tmp_path)
    table = ratings.data[["user_id", "item_id", "rating"]]
    assert [tuple(row) for row in table.to_numpy()] == NETFLIX_ROWS
    assert ratings.timestamp.tolist() == [86400, 172800, 0]
    assert ratings.titles == {1: "One, or two", 2: "Zw\u00f6lf"}
    assert ratings.name == "netflix"


@pytest.mark.parametrize("text", ["", "7,3,x\n"])
def test_a_netflix_file_that_is_none_is_refused(text, tmp_path):
    (tmp_path / "netflix").mkdir()
    (tmp_path / "netflix" / "mv_0000001.txt").write_text(text)
    with pytest.raises(DataError, match="mv_0000001.txt:1: is not a film's number"):
        load_dataset("netflix", tmp_path)


def test_netflix_cannot_be_downloaded(tmp_path):
    with pytest.raises(DatasetUnavailable, match="put combined_data_"):
        load_dataset("netflix", tmp_path)
