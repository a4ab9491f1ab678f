"""The page of ``python -m d2l_autorec.demo``, and what it asks a model."""

from __future__ import annotations

import unicodedata
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import flask
import numpy as np

from ..errors import AutoRecError, DataError, ModelError
from .recommend import held_to_scale, is_rated

if TYPE_CHECKING:
    from ..serving import Predictor

NUM_FOUND = NUM_RECOMMENDED = 12
_HOSTS = ["127.0.0.1", "localhost"]
_MAX_REQUEST = 2**16  # bytes: some thousands of ratings
_MAX_LEVELS = 10


def make_page(model: Predictor) -> flask.Flask:
    """Make the page, and have the model ready to answer at once.

    It answers requests that name this machine as their host, and no others: a page from
    elsewhere cannot reach it by a name of its own (DNS rebinding).
    """
    page = flask.Flask(__name__)
    page.config.update(TRUSTED_HOSTS=_HOSTS, MAX_CONTENT_LENGTH=_MAX_REQUEST)
    catalogue = _Catalogue(model)
    with suppress(ModelError):  # which the page will show
        model.recommend_new({})

    @page.get("/")
    def index() -> flask.Response:
        return page.send_static_file("index.html")

    @page.get("/model")
    def about() -> dict[str, Any]:
        num_items, num_users = model.run.parts.train_mat.shape
        return {
            "name": model.run.parts.name,
            "num_items": num_items,
            "num_users": num_users,
            "levels": catalogue.levels,
            "rated": catalogue.rated,  # else a thumb is all that an item gets
        }

    @page.get("/items")
    def items() -> list[dict[str, Any]]:
        return catalogue.find(flask.request.args.get("q", ""))

    @page.post("/recommendations")
    def recommendations() -> list[dict[str, Any]]:
        try:
            body = flask.request.get_json(silent=True)  # None for what is no JSON
        except RecursionError:  # of lists in lists
            body = None
        return catalogue.recommend(_ratings(body))

    @page.errorhandler(AutoRecError)
    def refuse(error: AutoRecError) -> tuple[dict[str, str], int]:
        return {"error": str(error)}, 422

    @page.after_request
    def secure(response: flask.Response) -> flask.Response:
        response.headers["Content-Security-Policy"] = (
            "default-src 'self'; img-src data:; frame-ancestors 'none'"
        )
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return page


class _Catalogue:
    """A model's items by their indices, which the page knows them by."""

    def __init__(self, model: Predictor) -> None:
        run = model.run
        self.model, self.rated = model, is_rated(model)
        self._ids = run.parts.item_ids.tolist()
        self._index = {item_id: index for index, item_id in enumerate(self._ids)}
        self._names = [run.parts.titles.get(i) or str(i) for i in self._ids]
        self._plain = list(map(_plain, self._names))
        counts = np.diff(run.parts.train_mat.indptr)
        order = np.argsort(-counts, kind="stable")
        self._by_count = order[counts[order] > 0].tolist()
        levels = np.unique(run.parts.train_mat.data)
        if len(levels) > _MAX_LEVELS:
            levels = np.linspace(levels[0], levels[-1], 5)
        # Of float32, without the digits that a shift brings.
        self.levels = (levels - run.parts.rating_offset).round(4).tolist()

    def find(self, query: str) -> list[dict[str, Any]]:
        """Find items whose names have all words of the query, most rated first."""
        words = _plain(query).split()
        found = (
            {"item": index, "name": self._names[index]}
            for index in self._by_count
            if all(word in self._plain[index] for word in words)
        )
        return [item for item, _ in zip(found, range(NUM_FOUND))]

    def recommend(self, ratings: list[tuple[int, float]]) -> list[dict[str, Any]]:
        """Recommend items, with predictions that are held to the scale."""
        if not all(0 <= item < len(self._ids) for item, _ in ratings):
            raise DataError("an item that the model does not have")
        given: Any = [(self._ids[item], rating) for item, rating in ratings]
        if not self.rated:
            given = dict(given)
        best = self.model.recommend_new(given, NUM_RECOMMENDED)
        return [
            {
                "item": self._index[one.item_id],
                "name": one.title or str(one.item_id),
                "value": one[1],
            }
            for one in held_to_scale(best, self.model)
        ]


def _ratings(body: Any) -> list[tuple[int, float]]:
    """Read what the page sends: a list of pairs of an item's index and a rating."""
    try:
        pairs = [(item, float(rating)) for item, rating in body]
        # float reads texts and true, too.
        fits = all(type(i) is int and type(r) in (int, float) for i, r in body)
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise DataError("no list of pairs of an item and a rating")
    return pairs


def _plain(text: str) -> str:
    """Write a text as people type it: in small letters without accents."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(x for x in letters if not unicodedata.combining(x))
