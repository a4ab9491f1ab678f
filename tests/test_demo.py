"""The page in the browser: what it asks the model, and whom it answers."""

import errno
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_checkpoint import CPU, make_run, train
from werkzeug.serving import make_server

from d2l_autorec import Predictor
from d2l_autorec.commands import demo, process
from d2l_autorec.commands.page import make_page
from d2l_autorec.errors import AutoRecError
from d2l_autorec.training import Training


def predictor(**changes):
    """A toy after an epoch: items 100 to 108, two with titles; ratings from -1 to 3."""
    run = make_run(valid=True, **{"num_hidden": 3, **changes.pop("recipe", {})})
    run = replace(run, parts=replace(run.parts, **changes))
    training = Training(run, CPU)
    next(training.epochs())
    return Predictor(training.net, run)


@pytest.fixture(scope="module")
def model():
    return predictor()


@pytest.fixture(scope="module")
def client(model):
    return make_page(model).test_client()


def test_what_the_page_is_made_of_is_there(client):
    page = client.get("/", buffered=True)
    assert page.mimetype == "text/html"
    for part in ("page.css", "page.js"):
        assert f"static/{part}" in page.text
        assert client.get(f"/static/{part}", buffered=True).status_code == 200


def test_the_scale_is_that_of_the_ratings(client):
    about = client.get("/model").json
    assert about["levels"] == [-1, 0, 1, 2, 3]
    assert (about["num_items"], about["num_users"]) == (9, 12)


def test_a_scale_of_many_levels_has_five(model):
    train_mat = model.run.parts.train_mat.copy()
    train_mat.data = np.linspace(1, 101, train_mat.nnz, dtype=np.float32)
    page = make_page(predictor(train_mat=train_mat, rating_offset=1.0))
    assert page.test_client().get("/model").json["levels"] == [0, 25, 50, 75, 100]


@pytest.mark.parametrize(
    ("query", "names"),
    [("hundred THE", ["The Hundred"]), ("zurich", ["Zürich"]), ("107", ["107"])],
)
def test_items_are_found_by_words_of_their_titles_or_ids(client, query, names):
    found = client.get("/items", query_string={"q": query}).json
    assert [item["name"] for item in found] == names


def test_without_a_query_the_most_rated_items_come_up(model, client):
    counts = np.diff(model.run.parts.train_mat.indptr)
    found = [counts[item["item"]] for item in client.get("/items").json]
    assert found == sorted(counts[counts > 0], reverse=True)


@pytest.mark.parametrize("kind", ["item", "user"])
@pytest.mark.parametrize("given", [{}, {0: 3.0, 5: -1.0}], ids=["none", "two"])
def test_recommendations_are_a_new_users(kind, given):
    model = predictor(recipe={"kind": kind})
    asked = [[item, rating] for item, rating in given.items()]
    found = make_page(model).test_client().post("/recommendations", json=asked).json
    ids = model.run.parts.item_ids
    expected = model.recommend_new({ids[i]: rating for i, rating in given.items()}, 12)
    assert [ids[item["item"]] for item in found] == [one.item_id for one in expected]
    names = [one.title or str(one.item_id) for one in expected]
    assert [item["name"] for item in found] == names


def test_predictions_are_held_to_the_scale(model, client, monkeypatch):
    best = [one._replace(rating=9.0) for one in model.recommend_new({}, 1)]
    monkeypatch.setattr(model, "recommend_new", lambda *_: best)
    (item,) = client.post("/recommendations", json=[]).json
    assert item["value"] == 3


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([[99, 1]], "does not have"),
        ([[-1, 1]], "does not have"),
        ([[0.5, 1]], "no list of pairs"),
        ({"a": 1}, "no list of pairs"),
        ([[0, 10**400]], "no list of pairs"),
        ([[0, "x"]], "no list of pairs"),
        ([[0, "1_0"]], "no list of pairs"),
        ([[0, "\uff15"]], "no list of pairs"),  # a 5 of full width
        ([[0, True]], "no list of pairs"),
        ([[True, 1]], "no list of pairs"),
        ([[0, float("nan")]], "outside the scale"),
        ([[0, 1], [0, 2]], "more than once"),
    ],
)
def test_what_is_no_rating_is_refused(client, body, said):
    answer = client.post("/recommendations", json=body)
    assert answer.status_code == 422
    assert said in answer.json["error"]


def test_lists_in_lists_are_refused(client):
    sent = {"data": 60_000 * "[", "content_type": "application/json"}
    answer = client.post("/recommendations", **sent)
    assert answer.status_code == 422
    assert "no list of pairs" in answer.json["error"]


def test_a_model_that_takes_no_new_users_says_so():
    page = make_page(predictor(recipe={"output": "sigmoid"}))
    answer = page.test_client().post("/recommendations", json=[])
    assert answer.status_code == 422
    assert "train with --kind user" in answer.json["error"]


@pytest.mark.parametrize("path", ["/", "/model", "/static/page.js"])
def test_only_this_machines_names_are_answered(client, path):
    for host, status in (
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("rebound.example", 400),
    ):
        answer = client.get(path, headers={"Host": host}, buffered=True)
        assert answer.status_code == status


def test_a_form_of_another_page_is_refused(client):
    """A browser sends JSON to another origin only if that origin agrees."""
    sent = client.post("/recommendations", data="[]", content_type="text/plain")
    assert sent.status_code == 422


def test_an_endless_request_is_refused(client):
    assert client.post("/recommendations", json=[[0, 1]] * 10**5).status_code == 413


def test_a_port_in_use_is_named():
    with socket.create_server((demo.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AutoRecError, match=f"^port {port}: .*--port") as caught:
            demo.main(["--model", "nowhere", "--port", str(port)])
    assert os.strerror(errno.EADDRINUSE) in str(caught.value)


def test_without_flask_it_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        demo.main(["--model", "nowhere"])
    assert "needs Flask: python -m pip install" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")]
)
def test_it_answers_until_it_is_interrupted(
    tmp_path, monkeypatch, capsys, number, said
):
    train(tmp_path / "model", make_run())
    reader, writer = os.pipe()
    answers = []

    def ask():
        with os.fdopen(reader) as out:
            port = int(out.readline().split("/")[2].split(":")[1])
        connection = http.client.HTTPConnection(demo.HOST, port, timeout=60)
        connection.request("GET", "/model")
        answers.append(connection.getresponse().read())
        os.kill(os.getpid(), number)  # with the connection still open
        answers.append(connection)

    threading.Thread(target=ask, daemon=True).start()
    with os.fdopen(writer, "w") as out, pytest.raises(SystemExit, match="1"):
        monkeypatch.setattr(sys, "stdout", out)
        flags = ["--model", str(tmp_path / "model"), "--port", "0"]
        process.run(lambda: demo.main(flags))
    assert b'"toy"' in answers[0]
    assert capsys.readouterr().err == f"{said}\n"


# No rule asks how wide the window is, and Chromium's are wider than a phone.
PROBE = """
document.body.style.width = "328px";
const wait = setInterval(() => {
  if (document.querySelector("#rated button")) {
    clearInterval(wait);
    const widths = [...document.querySelectorAll(".name")].map((n) => n.offsetWidth);
    document.title = `narrowest: ${Math.min(...widths)}`;
  } else document.querySelector("#found input")?.click();
}, 50);
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium")
def test_ten_stars_leave_titles_room_on_a_phone(model, tmp_path):
    train_mat = model.run.parts.train_mat.copy()
    train_mat.data = np.resize(np.arange(1, 11, dtype=np.float32), train_mat.nnz)
    page = make_page(predictor(train_mat=train_mat, rating_offset=0.0))
    index = Path(page.static_folder, "index.html").read_text()
    index += '<script src="probe.js" type="module"></script>'
    page.add_url_rule("/probe", "probe", lambda: index)
    page.add_url_rule(
        "/probe.js",
        "js",
        lambda: page.response_class(PROBE, mimetype="text/javascript"),
    )
    with make_server(demo.HOST, 0, page, threaded=True) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        shown = subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu"]
            + ["--disable-background-networking", f"--user-data-dir={tmp_path}"]
            + ["--virtual-time-budget=60000", "--dump-dom"]
            + [f"http://{demo.HOST}:{server.port}/probe"],
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout
        server.shutdown()
    assert int(re.search("narrowest: (\\d+)", shown)[1]) >= 120
