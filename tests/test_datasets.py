"""Where data sets come from: folders, archives, and servers that misbehave."""

import datetime
import hashlib
import http.server
import io
import os
import ssl
import threading
import zipfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import trustme
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

    def start(*behaviours, certificate=None):
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
            scheme = "http"
            if certificate:
                scheme = "https"
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                certificate.configure_cert(context)
                server.socket = context.wrap_socket(server.socket, server_side=True)
            threading.Thread(
                target=server.serve_forever, args=(0.01,), daemon=True
            ).start()
            running.append(server)
            urls.append(f"{scheme}://localhost:{server.server_address[1]}")
            if behaviour is None:  # refuse connections
                running.pop().shutdown()
                server.server_close()
        monkeypatch.setattr(datasets, "SERVERS", tuple(urls))
        return requests

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def authority(tmp_path, monkeypatch):
    """The one authority that is trusted."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    return authority


def lapsed(authority, host="localhost"):
    """Issue a certificate that lapsed yesterday."""
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(1)
    return authority.issue_cert(host, not_after=yesterday)


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
    assert requests == {0: 1}


def test_what_was_downloaded_once_is_not_asked_for_again(cache, serve):
    requests = serve(GOOD)
    load_dataset("ml-100k")
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
        (ALTERED, "SHA-256 is not the published one"),
        (503, "HTTP status 503"),
        (None, "ConnectionError"),
    ],
    ids=["altered", "503", "refused"],
)
def test_nothing_is_kept_of_a_failed_download(cache, serve, behaviour, reason):
    serve(behaviour, behaviour)
    with pytest.raises(DatasetUnavailable, match=f"{reason}.*{reason}.*--data-dir"):
        load_dataset("ml-100k")
    assert kept(cache) == []


def test_nothing_is_kept_of_a_truncated_download(cache, serve):
    serve(GOOD[:-60], GOOD[:-60])
    with pytest.raises(DatasetUnavailable, match="could not be downloaded"):
        load_dataset("ml-100k")
    assert kept(cache) == []


def test_a_lapsed_certificate_is_passed_over_and_said_so(
    cache, serve, authority, logged
):
    requests = serve(GOOD, 503, certificate=lapsed(authority))
    assert load_dataset("ml-100k").num_users == 2
    assert requests == {0: 1}
    levels = {record.levelname: record.getMessage() for record in logged.records}
    assert "without verifying its lapsed certificate" in levels["WARNING"]
    assert "without verifying" not in levels["INFO"]


def test_altered_bytes_behind_a_lapsed_certificate_are_refused(cache, serve, authority):
    serve(ALTERED, ALTERED, certificate=lapsed(authority))
    with pytest.raises(
        DatasetUnavailable, match="certificate has expired.*SHA-256 is not"
    ):
        load_dataset("ml-100k")
    assert kept(cache) == []


@pytest.mark.parametrize(
    ("certify", "reason"),
    [
        (lambda trusted: trusted.issue_cert("elsewhere.example"), "Hostname mismatch"),
        (lambda trusted: lapsed(trusted, "elsewhere.example"), "Hostname mismatch"),
        (lambda _: trustme.CA().issue_cert("localhost"), "local issuer"),
        (lambda _: lapsed(trustme.CA()), "local issuer"),
    ],
    ids=["wrong host", "wrong host, lapsed", "unknown", "unknown, lapsed"],
)
def test_nothing_is_taken_from_a_server_that_is_not_who_it_says(
    cache, serve, authority, certify, reason, logged
):
    requests = serve(GOOD, certificate=certify(authority))
    with pytest.raises(DatasetUnavailable, match=f"certificate not valid: .*{reason}"):
        load_dataset("ml-100k")
    assert not requests
    assert "downloading" in logged.text and "without verifying" not in logged.text
    assert kept(cache) == []


@pytest.mark.parametrize("said", [True, False], ids=["length said", "not said"])
def test_a_download_that_is_too_large_is_ended(cache, serve, monkeypatch, said):
    monkeypatch.setattr(datasets._Progress, "max_bytes", 2000)
    monkeypatch.setitem(globals(), "GOOD", bytes(9000))
    if not said:  # a server need not
        handler = http.server.BaseHTTPRequestHandler
        monkeypatch.setattr(handler, "send_header", lambda *header: None)
    serve(GOOD)
    with pytest.raises(DatasetUnavailable, match="zip: more than 2,000 bytes"):
        load_dataset("ml-100k")
    assert kept(cache) == []


def test_a_download_that_takes_too_long_is_ended(cache, serve, monkeypatch):
    monkeypatch.setattr(datasets._Progress, "max_seconds", 0)
    serve(GOOD)
    with pytest.raises(DatasetUnavailable, match="zip: not done after 0 s"):
        load_dataset("ml-100k")
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
    with pytest.raises(DatasetUnavailable, match=f"cannot keep .* in {cache}.*XDG"):
        load_dataset("ml-100k")


def test_a_full_disk_is_named(cache, serve, monkeypatch):
    serve(GOOD)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pooch.HTTPDownloader.__call__", full)
    with pytest.raises(DatasetUnavailable, match="No space left on device.*XDG"):
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


@pytest.mark.parametrize(
    ("name", "titles", "read"),
    [
        ("ml-100k", b"1|One|x\nTwo", 1),
        ("ml-100k", b"1|One|x\n2\n", 1),
        ("ml-100k", b"\x00\xff", 0),
        ("ml-1m", b"1::One::x\n2:Two\n3::Three::x", 1),
        ("ml-10m", b"1::One::x\n2::Tw\xe9::x", 0),
        ("ml-latest-small", b"movieId,title\n1,One\n2\n", 1),
        ("ml-latest-small", b'movieId,title\n1,One\n2,"Two\n3,Three\n', 1),
        ("ml-latest-small", b"movieId,title\n1,One\ntwo,Two\n", 1),
        ("ml-latest-small", b"movieId,title\n1,\xff\n", 0),
        ("ml-latest-small", b"movieId,title\n" + b"9" * 5000 + b",x\n", 0),
    ],
)
def test_damaged_titles_are_named(tmp_path, name, titles, read):
    archive = datasets.ARCHIVES[name]
    (tmp_path / archive.folder).mkdir()
    line = {"u.data": "1\t1\t1\t1\n2\t2\t2\t2\n", "ratings.dat": "1::1::1\n2::2::2\n"}
    text = line.get(archive.ratings, "userId,movieId,rating\n1,1,1\n2,2,2\n")
    (tmp_path / archive.folder / archive.ratings).write_text(text)
    (tmp_path / archive.folder / archive.titles).write_bytes(titles)
    said = f"{archive.folder}/{archive.titles}: is damaged after {read} titles$"
    with pytest.raises(DataError, match=said):
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


def test_real_ml_100k_is_the_published_one(real_ml_100k):
    ratings = load_dataset("ml-100k")
    assert ratings.data.shape == (100_000, 4)
    assert (ratings.num_users, ratings.num_items) == (943, 1682)
    assert ratings.titles[1] == "Toy Story (1995)"
    assert len(ratings.titles) == 1682


def test_the_synthetic_ratings_have_the_promised_shape():
    ratings = synthetic_ratings()
    assert ratings.data.shape == (100_000, 4)
    assert (ratings.num_users, ratings.num_items) == (943, 1682)
    assert not ratings.data.duplicated(["user_id", "item_id"]).any()
    assert set(ratings.data.rating) == {1, 2, 3, 4, 5}


def test_the_synthetic_ratings_have_long_tails():
    ratings = synthetic_ratings()
    for column in ("user_id", "item_id"):
        counts = np.sort(ratings.data[column].value_counts().to_numpy())[::-1]
        assert counts[: len(counts) // 5].sum() > 0.5 * counts.sum()


def test_the_synthetic_ratings_follow_their_seed():
    assert synthetic_ratings(1).data.equals(synthetic_ratings(1).data)
    assert not synthetic_ratings(1).data.equals(synthetic_ratings(2).data)


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


@pytest.mark.parametrize(
    ("text", "said"), [("", "is empty"), ("7,3,x\n", ":1: is not a film's number")]
)
def test_a_netflix_file_that_is_none_is_refused(text, said, tmp_path):
    (tmp_path / "netflix").mkdir()
    (tmp_path / "netflix" / "mv_0000001.txt").write_text(text)
    with pytest.raises(DataError, match=f"mv_0000001.txt:? ?{said}"):
        load_dataset("netflix", tmp_path)


def test_netflix_cannot_be_downloaded(tmp_path):
    with pytest.raises(DatasetUnavailable, match="put combined_data_"):
        load_dataset("netflix", tmp_path)
