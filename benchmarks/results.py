"""A line for each figure that we stand behind: ``python benchmarks/results.py``.

Writes ``docs/results.md`` from the records in ``docs/results/``, which
``d2l_autorec.paper`` and ``anywhere.py`` keep: the trainings that were scored on a test
part, with the settings that the code has today. Those of older code are marked.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import anywhere

from d2l_autorec.serving import save_text
from d2l_autorec.study import REVISION, Records, experiments, markdown_table, spread

DOCS = Path(__file__).parents[1] / "docs"
TEXT = """# Figures

Each figure that we stand behind, from the records of the trainings in
[`docs/results/`](map.md#beside-the-package), with the settings that the code has today.
`python benchmarks/results.py` writes this page.

- Split: random holds out a tenth of the ratings, another one for each seed; u1 to u5
  are MovieLens 100K's own folds.
- RMSE: pooled over the test part, mean ± standard deviation over five runs. **Fewer**
  runs are marked.
- Copies of a data set, such as `ml-100k:1/10`: `benchmarks/anywhere.py`.
- Date: of the last run. Code: the version of the package and the revision of its
  results. **Older** code came before a change that may move results; the command
  computes them again.
"""
PAPER = """
## The paper's experiments: {dataset}

By the [paper's protocol](paper.md): predictions are clipped to the rating scale, and
users and items without a training rating get a 3. The split is random.

{table}
"""
ANYWHERE = """
## Models as they predict: {dataset} and its copies

Predictions are not clipped, and users and items without a training rating are left to
the model.

{table}
"""
NUM_RUNS = 5


class Figure(NamedTuple):
    """The subject of a line, and the records of its runs."""

    dataset: str
    split: str
    model: str
    command: str
    runs: Sequence[Mapping[str, Any]]


def of_the_paper(file: Path) -> Iterator[Figure]:
    """Find the trainings of the paper's experiments on a data set."""
    command = f"python -m d2l_autorec.paper --dataset {file.stem} --only "
    records = Records(file, command)
    for name, experiment in experiments().items():
        only = "hidden" if name.startswith("hidden") else name
        about = (file.stem, "random", experiment.title, command + only)
        for settings in map(experiment.settings, experiment.wds):
            runs = records.find(part="test", settings=settings)
            yield Figure(*about, runs[: experiment.num_splits])


def of_anywhere(file: Path) -> Iterator[Figure]:
    """Find the trainings on many sets."""
    records = Records(file, anywhere.COMMAND)
    for name in anywhere.SETS:
        split = "u1-u5" if name.endswith("u1-u5") else "random"
        for title in anywhere.MODELS:
            command = f"{anywhere.COMMAND} --only {name} --models {title}"
            runs = [*anywhere.runs_of(records, name, title).values()]
            yield Figure(name, split, title, command, runs)


def line(figure: Figure) -> Sequence[str]:
    """Write a figure's line."""
    *about, command, runs = figure
    rmse = spread([run["rmse"] for run in runs], ".4f")
    if len(runs) < NUM_RUNS:
        rmse += f" (**{len(runs)} of {NUM_RUNS} runs**)"
    date = max(run["date"] for run in runs)
    codes = sorted({_code(run) for run in runs})
    return (*about, rmse, f"`{command}`", date, ", ".join(codes))


def _code(run: Mapping[str, Any]) -> str:
    if run.get("revision") == REVISION:
        return f"{run['d2l_autorec']}, revision {REVISION}"
    return "**older**"


def section(text: str, dataset: str, figures: Iterable[Figure]) -> str:
    """Write a heading and the lines below it; nothing if there are none."""
    header = "data set", "split", "model", "RMSE", "command", "date", "code"
    if lines := [line(figure) for figure in figures if figure.runs]:
        return text.format(dataset=dataset, table=markdown_table([header, *lines]))
    return ""


def page(folder: Path) -> str:
    """Write the page, in Markdown, from the records in a folder."""
    files = sorted(file for file in folder.glob("*.json") if file.stem != "anywhere")
    sections = [section(PAPER, file.stem, of_the_paper(file)) for file in files]
    others = of_anywhere(folder / "anywhere.json")
    for dataset, figures in groupby(others, lambda one: one.dataset.split(":")[0]):
        sections.append(section(ANYWHERE, dataset, figures))
    return "".join([TEXT, *sections])


if __name__ == "__main__":
    save_text(page(DOCS / "results"), DOCS / "results.md")
