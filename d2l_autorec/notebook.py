"""Tools of the notebooks: data without a network, lists, and sliders to rate items.

Tables and sliders speak English, Korean and Portuguese.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as onp

from .errors import DatasetUnavailable
from .ratings import SYNTHETIC, Ratings, load_dataset

if TYPE_CHECKING:
    from collections.abc import Mapping

    import ipywidgets
    import pandas as pd

    from .serving import Predictor

_TRANSLATED = {
    "item": ("item", "아이템", "item"),
    "title": ("recommended", "추천", "recomendados"),
    "rating": ("predicted rating", "예측 평점", "avaliação prevista"),
    "popular": ("most rated", "평점이 가장 많은 것", "mais avaliados"),
    "count": ("ratings", "평점 수", "avaliações"),
    "none": ("not rated", "평점 없음", "sem nota"),
    "validation": ("validation", "검증", "validação"),
    "test": ("test", "테스트", "teste"),
    "epochs": ("epochs", "에포크", "épocas"),
    "hidden units": ("hidden units", "은닉 유닛", "unidades ocultas"),
    "hidden layers": ("hidden layers", "은닉층", "camadas ocultas"),
    "activations": ("activations", "활성화 함수", "funções de ativação"),
    "popularity": ("popularity", "인기도", "popularidade"),
    "network": ("network", "신경망", "rede"),
    "chosen": ("chosen on validation", "검증 데이터로 고름", "escolha na validação"),
    "synthetic": (
        "SYNTHETIC RATINGS: not comparable with the book",
        "생성한 평점: 책과 비교할 수 없음",
        "AVALIAÇÕES GERADAS: não comparáveis com o livro",
    ),
}
WORDS = {
    language: {name: words[index] for name, words in _TRANSLATED.items()}
    for index, language in enumerate(("en", "ko", "pt"))
}
MIN_RATINGS = 20  # training ratings of an item in a list
# Well-known films to rate, and where their sliders stand at first; 0 is "not rated".
FILMS = {
    "Star Wars": 5,
    "Terminator, The": 5,
    "Jurassic Park": 4,
    "Titanic": 2,
    "Lion King, The": 1,
    **dict.fromkeys(("Toy Story", "Pulp Fiction", "Fargo", "Casablanca"), 0),
    **dict.fromkeys(("Godfather, The", "Forrest Gump"), 0),
}


def load_or_generate(dataset: str, language: str = "en") -> Ratings:
    """Load a data set; generate ratings, and say so, if it is not available."""
    try:
        ratings = load_dataset(dataset)
    except DatasetUnavailable as error:
        print(error)
        ratings = load_dataset(SYNTHETIC)
    if ratings.name == SYNTHETIC:
        print(WORDS[language]["synthetic"])
    return ratings


def read_data(dataset: str, language: str = "en") -> tuple[pd.DataFrame, int, int]:
    """Read any data set as `read_data_ml100k` does, with ids renumbered from 1.

    ``data.attrs["name"]`` is the name of the ratings, which may be generated ones;
    ``data.attrs["titles"]`` has a title for each new id, or the id of the data.
    """
    ratings = load_or_generate(dataset, language)
    data = ratings.data.copy()
    for column, ids in (("user_id", ratings.user_ids), ("item_id", ratings.item_ids)):
        data[column] = onp.searchsorted(ids, data[column]) + 1  # ids are sorted
    data.attrs["name"] = ratings.name
    titles = (
        item_title(ratings.titles, i, language) for i in ratings.item_ids.tolist()
    )
    data.attrs["titles"] = dict(enumerate(titles, 1))
    return data, ratings.num_users, ratings.num_items


def item_title(titles: Mapping[Any, str], item_id: Any, language: str) -> str:
    """Return an item's title; without any, its id."""
    return str(titles.get(item_id, f"{WORDS[language]['item']} {item_id}"))


class Lists:
    """The lists of a trained model, beside the most rated items."""

    def __init__(self, predictor: Predictor, language: str = "en") -> None:
        self.predictor, self.language, self.words = predictor, language, WORDS[language]
        parts = predictor.run.parts
        self.item_ids, self.titles = parts.item_ids.tolist(), parts.titles
        self.counts = onp.diff(parts.train_mat.indptr)  # (num_items,)
        order = onp.argsort(-self.counts, kind="stable")
        self.popular = [self.item_ids[index] for index in order]  # most rated first

    def title(self, item_id: Any) -> str:
        """Return an item's title; without any, its id."""
        return item_title(self.titles, item_id, self.language)

    def of(self, user_id: Any, n: int = 10) -> pd.DataFrame:
        """Return the list of a user, beside the items that the user has not rated."""
        parts = self.predictor.run.parts
        column = parts.user_ids.tolist().index(user_id)
        rated = parts.train_mat[:, [column]].nonzero()[0]
        best = self.predictor.recommend(user_id, n, min_ratings=MIN_RATINGS)
        return self._table(best, {self.item_ids[index] for index in rated}, n)

    def of_new(self, ratings: dict[Any, float], n: int = 10) -> pd.DataFrame:
        """Return the list of somebody who gives these ratings, in the same form."""
        best = self.predictor.recommend_new(ratings, n, min_ratings=MIN_RATINGS)
        return self._table(best, set(ratings), n)

    def _table(self, best: list[Any], rated: set[Any], n: int) -> pd.DataFrame:
        import pandas as pd

        popular = [item_id for item_id in self.popular if item_id not in rated][:n]
        count = dict(zip(self.item_ids, self.counts))
        columns = {
            self.words["title"]: [self.title(item.item_id) for item in best],
            self.words["rating"]: [round(item.rating, 2) for item in best],
            self.words["popular"]: [self.title(item_id) for item_id in popular],
            self.words["count"]: [count[item_id] for item_id in popular],
        }
        table = pd.DataFrame({name: pd.Series(v) for name, v in columns.items()})
        return table.set_axis(range(1, len(table) + 1))

    def sliders(self) -> dict[Any, ipywidgets.SelectionSlider]:
        """Make a slider for each of twelve well-known or much rated items."""
        import ipywidgets

        first = {}
        for film, rating in FILMS.items():
            found = (i for i in self.popular if self.title(i).startswith(film))
            if (item_id := next(found, None)) is not None:
                first[item_id] = rating
        for item_id in self.popular[:12]:
            if len(first) < 12:
                first.setdefault(item_id, 0)
        offset = self.predictor.run.parts.rating_offset
        levels = onp.unique(self.predictor.run.parts.train_mat.data) - offset
        options = [(self.words["none"], 0), *((f"{v:g} ★", float(v)) for v in levels)]
        return {
            item_id: ipywidgets.SelectionSlider(
                options=options,
                value=rating if rating in levels else 0,
                description=self.title(item_id),
                style={"description_width": "18em"},
                layout={"width": "40em"},
            )
            for item_id, rating in first.items()
        }

    def show(self) -> dict[Any, ipywidgets.SelectionSlider]:
        """Show the sliders above a list that follows them; return the sliders."""
        import ipywidgets
        from IPython.display import display

        sliders = self.sliders()

        def table() -> pd.DataFrame:
            return self.of_new({i: s.value for i, s in sliders.items() if s.value})

        for item_id, slider in sliders.items():
            if slider.value:
                print(f"{slider.value:g} ★ {self.title(item_id)}")
        display(ipywidgets.VBox(list(sliders.values())))
        shown = display(table(), display_id=True)
        for slider in sliders.values():
            slider.observe(lambda change: shown.update(table()), names="value")
        return sliders
