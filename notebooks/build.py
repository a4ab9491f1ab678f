"""Bring the notebooks up to date and run them: ``python notebooks/build.py``.

English owns the code. The other languages carry the same code cells, with their own
``language``, and markdown cells of their own with the same ids. All notebooks are run
top to bottom and written back with their outputs.
"""

import argparse
import sys
from pathlib import Path

import nbclient
import nbformat
from nbformat import NotebookNode
from tqdm import tqdm

from d2l_autorec.serving import replacing

HERE = Path(__file__).parent
LANGUAGES = ("en", "ko", "pt")
NAMES = ("autorec", "recommendations", "exercises", "paper")
WIDGET = "application/vnd.jupyter.widget-view+json"


def translated(
    english: NotebookNode, other: NotebookNode, language: str
) -> NotebookNode:
    """Return the English code cells between another language's markdown cells.

    Cells are matched by their ids. A markdown cell without a counterpart is a
    `ValueError`.
    """
    texts = {c.id: c for c in other.cells if c.cell_type == "markdown"}
    wanted = [c.id for c in english.cells if c.cell_type == "markdown"]
    if missing := set(wanted) ^ set(texts):
        raise ValueError(f"markdown cells in one language only: {sorted(missing)}")
    result = nbformat.from_dict(english)
    result.cells = [texts.get(cell.id, cell) for cell in result.cells]
    for cell in result.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = cell.source.replace(
                'language = "en"', f'language = "{language}"'
            )
    return result


def run(notebook: NotebookNode, **parameters: object) -> NotebookNode:
    """Run a notebook in a fresh kernel and return it with its outputs.

    `parameters` are values for names that the cell tagged ``parameters`` sets. Widgets
    are left out, as they need a kernel.
    """
    result = nbformat.from_dict(notebook)
    for cell in result.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if "parameters" in cell.metadata.get("tags", []):
                cell.source += "".join(f"\n{k} = {v!r}" for k, v in parameters.items())
    nbclient.NotebookClient(result, timeout=900, record_timing=False).execute()
    for cell in result.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if WIDGET not in o.get("data", {})]
    result.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    return result


def load(language: str, name: str) -> NotebookNode:
    """Read one of the notebooks."""
    return nbformat.read(HERE / language / f"{name}.ipynb", as_version=4)


def main() -> None:
    """Bring notebooks up to date, run them and write them back."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--no-run", action="store_true", help="only copy the code, keep no outputs"
    )
    parser.add_argument(
        "--only", choices=NAMES, nargs="+", default=NAMES, help="default: all"
    )
    arguments = parser.parse_args()
    for name in arguments.only:
        english = load("en", name)
        for language in tqdm(LANGUAGES, desc=name, unit="notebook", file=sys.stderr):
            notebook = translated(english, load(language, name), language)
            if not arguments.no_run:
                notebook = run(notebook)
            with replacing(HERE / language / f"{name}.ipynb") as file:
                nbformat.write(notebook, file)


if __name__ == "__main__":
    main()
