"""Results of trainings, kept as soon as there are any."""

import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import DataError
from ..ratings import Ratings
from ..serving import save_text
from ..training import Recipe
from .comparison import Split, score
from .estimators import Estimator
from .tables import machine

# Goes up when the same settings, data and seed give another result.
REVISION = 2


class Records:
    """Trainings that have been done, in a JSON file that `command` writes again.

    The file is written after each training, so an interrupted run goes on where it was.
    A record has the training's ``dataset``, ``split``, ``part`` (``'validation'`` or
    ``'test'``), ``settings`` and ``title``; the measures, such as ``rmse``, ``seconds``
    and the settings that were ``chosen``; and the ``data``, ``revision``,
    ``d2l_autorec`` and ``date`` that it was done with. A file of something else is a
    DataError.
    """

    def __init__(self, file: Path, command: str) -> None:
        self.file, self.command = file, command
        self.records: list[dict[str, Any]] = []
        if file.exists():
            try:
                content = json.loads(file.read_text(encoding="utf-8"))
                for record in content["trainings"]:
                    settings = _with_all_settings(record["settings"])
                    dated = {"date": content["date"], **record, "settings": settings}
                    self.records.append(dated)
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise DataError(f"{file}: is not a study's results: {error}") from None

    def find(self, **key: Any) -> list[dict[str, Any]]:
        """List the records that have these values, such as ``part='test'``."""
        key = json.loads(json.dumps(key))
        found = self.records
        return [r for r in found if all(r.get(name) == key[name] for name in key)]

    def score(
        self,
        model: Estimator,
        run: Split,
        about: Mapping[str, str],
        tick: Callable[[int], None] = lambda epoch: None,
    ) -> dict[str, Any]:
        """Train and score a model, unless this code has done that on these data.

        `about` has the record's ``title``, ``dataset``, ``data`` (its `fingerprint`)
        and ``part``. The record replaces older ones of the same training.
        """
        training = {
            **{"dataset": about["dataset"], "split": run.name, "part": about["part"]},
            "settings": model.settings,
        }
        older = self.find(**training)
        for record in older:
            done_with = record.get("data"), record.get("revision")
            if done_with == (about["data"], REVISION):
                return record
        found = score(model, run, tick, with_curve=False)
        record = {
            **about,
            **training,
            **{"revision": REVISION, "d2l_autorec": __version__},
            "date": date.today().isoformat(),
            **found.measures,
            **{"seconds": found.seconds, "chosen": found.chosen},
        }
        self.records = [one for one in self.records if one not in older]
        record = dict(json.loads(json.dumps(record)))  # where a tuple is a list
        self.records.append(record)
        self.save()
        return record

    def save(self) -> None:
        """Write the records."""
        content = {
            "command": self.command,
            "machine": machine(),
            "python": platform.python_version(),
            "date": date.today().isoformat(),
            "trainings": self.records,
        }
        save_text(json.dumps(content, indent=1) + "\n", self.file)


def fingerprint(ratings: Ratings) -> str:
    """Tell data sets apart by their numbers and a checksum of the rows in order."""
    digest = hashlib.sha256()
    for index in ratings.indices():
        digest.update(index.astype("<i8").tobytes())
    digest.update(ratings.rating.astype("<f8").tobytes())
    return (
        f"{ratings.num_users} users, {ratings.num_items} items, "
        f"{ratings.num_ratings} ratings, SHA-256 {digest.hexdigest()[:16]}"
    )


def _with_all_settings(settings: Any) -> Any:
    """Fill settings that are newer than a record in, in each recipe; drop removed ones.

    Neither had an effect in it.
    """
    if isinstance(settings, list):
        return [*map(_with_all_settings, settings)]
    if not isinstance(settings, dict):
        return settings
    found = {name: _with_all_settings(value) for name, value in settings.items()}
    if "schedule" not in found:  # of no recipe
        return found
    return {name: found.get(name, usual) for name, usual in asdict(Recipe()).items()}
