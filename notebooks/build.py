"""Bring the notebooks up to date and run them: ``python notebooks/build.py``.

English owns the code. A cell marked ``shows`` carries definitions of the package,
without their docstrings; the other languages carry the English code cells, and markdown
cells of their own with the same ids. All are run top to bottom and written back with
their outputs.
"""

import argparse
import ast
import inspect
import sys
from importlib import import_module
from pathlib import Path

import nbclient
import nbformat
from nbformat import NotebookNode
from tqdm import tqdm

from d2l_autorec.serving import replacing

HERE = Path(__file__).parent
LANGUAGES = ("en", "ko", "pt")
NAMES = ("autorec", "exercises", "paper")
WIDGET = "application/vnd.jupyter.widget-view+json"


def shown_source(path: str) -> str:
    """Return the source of a definition, without its docstrings.

    Parameters
    ----------
    path : str
        Such as ``d2l_autorec.model.AutoRec``.

    Returns
    -------
    str
    """
    module, _, name = path.rpartition(".")
    source = inspect.getsource(getattr(import_module(module), name))
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            node
        ):
            docstring = node.body[0]
            end = docstring.end_lineno or docstring.lineno
            for number in range(docstring.lineno - 1, end):
                lines[number] = "\0"
            if end < len(lines) and not lines[end].strip():
                lines[end] = "\0"
    return "\n".join(line for line in lines if line != "\0")


def fill_shown(notebook: NotebookNode) -> None:
    """Write the package's definitions into the cells that show them.

    Parameters
    ----------
    notebook : NotebookNode
        Changed in place.
    """
    for cell in notebook.cells:
        if shown := cell.metadata.get("shows"):
            cell.source = "\n\n\n".join(map(shown_source, shown))


def translated(english: NotebookNode, other: NotebookNode) -> NotebookNode:
    """Put another language's markdown between the English code cells.

    Parameters
    ----------
    english, other : NotebookNode
        Matched by the ids of their cells.

    Returns
    -------
    NotebookNode
        A new notebook.

    Raises
    ------
    ValueError
        If a markdown cell has no counterpart, in either direction.
    """
    texts = {c.id: c for c in other.cells if c.cell_type == "markdown"}
    wanted = [c.id for c in english.cells if c.cell_type == "markdown"]
    if missing := set(wanted) ^ set(texts):
        raise ValueError(f"markdown cells in one language only: {sorted(missing)}")
    result = nbformat.from_dict(english)
    result.cells = [texts.get(cell.id, cell) for cell in english.cells]
    return result


def run(notebook: NotebookNode, **parameters: object) -> NotebookNode:
    """Run a notebook top to bottom in a fresh kernel.

    Parameters
    ----------
    notebook : NotebookNode
        Left as it is.
    **parameters
        Values for names that the cell tagged ``parameters`` sets.

    Returns
    -------
    NotebookNode
        With outputs and execution counts; without widgets, which need a kernel.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails.
    """
    result = nbformat.from_dict(notebook)
    for cell in result.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if "parameters" in cell.metadata.get("tags", []):
                cell.source += "".join(f"\n{k} = {v!r}" for k, v in parameters.items())
    nbclient.NotebookClient(result, timeout=600, record_timing=False).execute()
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
    """Read one of the notebooks.

    Parameters
    ----------
    language : str
        One of `LANGUAGES`.
    name : str
        One of `NAMES`.

    Returns
    -------
    NotebookNode
    """
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
        fill_shown(english)
        for language in tqdm(LANGUAGES, desc=name, unit="notebook", file=sys.stderr):
            notebook = translated(english, load(language, name))
            if not arguments.no_run:
                notebook = run(notebook)
            with replacing(HERE / language / f"{name}.ipynb") as file:
                nbformat.write(notebook, file)


if __name__ == "__main__":
    main()
