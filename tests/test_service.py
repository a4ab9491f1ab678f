"""The page on serving: its code runs as it stands there."""

import os
import re
import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import requests
from test_checkpoint import make_run, train

from d2l_autorec import load_model

PAGE = (Path(__file__).parents[1] / "docs" / "serving.md").read_text(encoding="utf-8")
CODES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three models, and a link to the first of them."""
    directory = tmp_path_factory.mktemp("models")
    for number in range(3):
        train(directory / str(number), replace(make_run(num_epochs=2), seed=number))
    return directory


@pytest.fixture
def service(folders, start):
    """The page's service with two processes, and what a folder's link is set by."""
    pytest.importorskip("gunicorn", reason="needs gunicorn")
    (folders / "service.py").write_text(CODES[0])

    def lead_to(number):
        (folders / "next").symlink_to(str(number))
        os.replace(folders / "next", folders / "current")

    lead_to(0)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = "{}:{}".format(*free.getsockname())
    start(
        *("-m", "gunicorn", "--workers", "2", "--threads", "4"),
        *("--bind", address, "service:app"),
        cwd=folders,
        env={**os.environ, "MODEL": "current"},
        stdout=None,
        stderr=None,
    )

    def ask(**body):
        answer = requests.post(f"http://{address}/recommendations", json=body)
        return answer.status_code, answer.json()

    end = time.monotonic() + 120
    while time.monotonic() < end:
        with suppress(requests.ConnectionError):
            ask(user="001")
            break
        time.sleep(0.2)
    return ask, lead_to


def test_the_service_answers_while_its_folder_is_replaced(service, folders):
    ask, lead_to = service
    models = [load_model(folders / str(number)) for number in range(3)]
    bodies = [{"user": "001", "n": 2}, {"ratings": [[100, 3], [104, -1]], "n": 2}]
    answers, goes_on = [], True

    def keep_asking(body):
        while goes_on:
            answers.append((body, *ask(**body)))

    threads = [threading.Thread(target=keep_asking, args=[b]) for b in bodies * 2]
    for thread in threads:
        thread.start()
    try:
        for number in (1, 2):
            lead_to(number)
            # Eight in a row: of both processes.
            end, wanted = time.monotonic() + 60, str(folders / str(number))
            while any(a[2].get("model") != wanted for a in answers[-8:]):
                assert time.monotonic() < end
                time.sleep(0.1)
    finally:
        goes_on = False
        for thread in threads:
            thread.join()
    assert {status for _, status, _ in answers} == {200}
    for body, _, answer in answers:
        model = models[int(Path(answer["model"]).name)]
        best = model.recommend("001", 2)
        if "ratings" in body:
            best = model.recommend_new(body["ratings"], 2)
        assert [one["item_id"] for one in answer["items"]] == [one[0] for one in best]


def test_the_service_says_what_does_not_fit(service):
    ask, _ = service
    for body, code, said in (
        ({"user": 1}, 422, "unknown user 1"),
        ({"ratings": [[100, 9]]}, 422, "outside the scale"),
        ({"ratings": 5}, 400, "send"),
        ({}, 400, "send"),
    ):
        status, answer = ask(**body)
        assert status == code
        assert said in answer["error"]


@pytest.mark.parametrize("kind", ["item", "user"])
@pytest.mark.parametrize("valid", [False, True], ids=["last", "best"])
def test_plain_arrays_predict_what_the_model_predicts(
    tmp_path, monkeypatch, kind, valid
):
    run = make_run(num_epochs=8, valid=valid, kind=kind, lr=0.3)
    train(tmp_path / "current", run)
    monkeypatch.chdir(tmp_path)
    page: dict = {}
    exec(CODES[1], page)
    model = load_model("current")
    pairs = [(f"{user:03}", item) for user in range(12) for item in range(100, 109)]
    found = [page["predict"](*pair) for pair in pairs]
    np.testing.assert_allclose(found, model.predict(pairs, "item-mean"), atol=1e-4)
    if kind == "user":
        row = np.zeros(9, np.float32)
        row[[0, 4]] = 3 + 2, -1 + 2
        best = model.recommend_new({100: 3, 104: -1}, 9, include_rated=True)
        expected = [rating for _, rating, _ in sorted(best, key=lambda x: x[0])]
        np.testing.assert_allclose(page["reconstruct"](row), expected, atol=1e-4)
