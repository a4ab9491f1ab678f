"""Results of trainings, kept as soon as there are any."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import DataError
from ..serving import save_text
from ..training import Recipe
from .tables import machine

# Goes up when the same settings, data and seed give another result.
REVISION = 2


class Records:
    """Trainings that have been done, in a file.

    Parameters
    ----------
    file : pathlib.Path
        JSON that keeps each result as soon as there is one, so that what was
        interrupted goes on where it was.
    command : str
        That prints them again.

    Attributes
    ----------
    records : list of dict
        Of each training what it was asked for, such as ``split``, ``part``
        (``'validation'`` or ``'test'``) and ``settings``; what came out, such as
        ``rmse`` and ``seconds``; what it was done on and with: ``data``, ``revision``
        and ``d2l_autorec``, which older records lack; and the ``date``, at the latest.
    superseded : list of dict
        Older records, whose training was done again on other data or by other code.

    Raises
    ------
    DataError
        If the file is there and is something else.
    """

    def __init__(self, file: Path, command: str) -> None:
        self.file, self.command = file, command
        self.records: list[dict[str, Any]] = []
        self.superseded: list[dict[str, Any]] = []
        if file.exists():
            try:
                content = json.loads(file.read_text(encoding="utf-8"))
                found = [{"date": content["date"], **r} for r in content["trainings"]]
                self.records = [
                    {**r, "settings": _with_all_settings(r["settings"])} for r in found
                ]
                self.superseded = content.get("superseded", [])
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise DataError(f"{file}: is not a study's results: {error}") from None

    def find(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """Look up the record of a training by what it has to have, such as a split."""
        for record in self.records:
            if all(record.get(name) == value for name, value in key.items()):
                return record
        return None

    def find_current(
        self, asked: Mapping[str, Any], data: str
    ) -> dict[str, Any] | None:
        """Look up the record of a training on these data, by this code.

        Parameters
        ----------
        asked : mapping
            What the training was asked for.
        data : str
            As from `fingerprint`.
        """
        return self.find({**asked, "data": data, "revision": REVISION})

    def keep(
        self, asked: Mapping[str, Any], data: str, found: Mapping[str, Any]
    ) -> None:
        """Keep a result, in place of an older one, and write all of them.

        Parameters
        ----------
        asked, data
            As for `find_current`.
        found : mapping
            What else the record says.
        """
        record = {
            **asked,
            "data": data,
            "revision": REVISION,
            "d2l_autorec": __version__,
            "date": date.today().isoformat(),
            **found,
        }
        if old := self.find(asked):
            self.superseded.append(old)
            self.records[self.records.index(old)] = record
        else:
            self.records.append(record)
        self.save()

    def save(self) -> None:
        """Write the records."""
        content = {
            "command": self.command,
            "machine": machine(),
            "python": platform.python_version(),
            "date": date.today().isoformat(),
            "trainings": self.records,
            "superseded": self.superseded,
        }
        save_text(json.dumps(content, indent=1) + "\n", self.file)


def _with_all_settings(settings: Any) -> Any:
    """Fill in settings that are newer than a record, in each recipe; drop removed ones.

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
