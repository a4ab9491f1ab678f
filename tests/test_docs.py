"""The documents: what they name is there, and the two READMEs say the same."""

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "d2l_autorec"
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "README.ko.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!`)\[([^\]]*)\]\(([^)\s]+)\)")
FOLDERS = r"\.ci|benchmarks|d2l_autorec|docs|notebooks|tests"
NAME = re.compile(r"`([a-z_]+(?:\.\w+)+)(?<!\.py)(?<!\.pyi)(?<!\.json)`")

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)


def prose(document: Path) -> str:
    return FENCE.sub("", document.read_text(encoding="utf-8"))


def anchors(document: Path) -> set[str]:
    """The names that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in words}


@cache
def defined(module: Path) -> set[str]:
    """The names in a module, those of its classes' members with the class."""
    found = set()

    def walk(body: list, prefix: str) -> None:
        for node in body:
            targets = getattr(node, "targets", [getattr(node, "target", node)])
            for name in (getattr(t, "name", getattr(t, "id", None)) for t in targets):
                if name:
                    found.add(prefix + name)
            if isinstance(node, ast.ClassDef):
                walk(node.body, f"{prefix}{node.name}.")

    walk(ast.parse(module.read_text(encoding="utf-8")).body, "")
    return found


@every_document
def test_links_lead_somewhere(document):
    broken = []
    for _, target in LINK.findall(prose(document)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


@every_document
def test_files_that_are_named_are_there(document):
    text = LINK.sub(r"(\2)", document.read_text(encoding="utf-8"))
    named = re.findall(rf"(?<![\w./-])((?:{FOLDERS})/[\w./*-]*\w)", text)
    named += re.findall(r"`([\w/]+\.py|\w+/)`", text)
    missing = [n for n in named if not any(ROOT.glob(n)) and not (PACKAGE / n).exists()]
    assert not missing


@every_document
def test_functions_that_are_named_are_there(document):
    """`loop.Step` stands for a name in a module of the package."""
    wrong = []
    for name in NAME.findall(prose(document)):
        parts = name.split(".")
        modules = [
            (PACKAGE.joinpath(*parts[:n]).with_suffix(".py"), ".".join(parts[n:]))
            for n in range(1, len(parts))
        ]
        modules = [(file, rest) for file, rest in modules if file.exists()]
        if modules and not any(rest in defined(file) for file, rest in modules):
            wrong.append(name)
    assert not wrong


@every_document
def test_modules_that_are_named_are_there(document):
    text = document.read_text(encoding="utf-8")
    for name in set(re.findall(r"\bpython -m (d2l_autorec[\w.]*\w)", text)):
        file = ROOT.joinpath(*name.split("."))
        assert (file / "__main__.py").exists() or file.with_suffix(".py").exists(), name


@every_document
def test_python_imports_what_is_there(document):
    for language, code in FENCE.findall(document.read_text(encoding="utf-8")):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert not [n.name for n in node.names if not hasattr(module, n.name)]


def test_the_map_names_every_module():
    found = re.findall(
        r"\]\(\.\./(d2l_autorec/[\w/]+\.py)\)", prose(ROOT / "docs/map.md")
    )
    modules = {
        file.relative_to(ROOT).as_posix()
        for file in PACKAGE.rglob("*.py")
        if file.parent == PACKAGE or file.name != "__init__.py"
    }
    assert sorted(found) == sorted(modules)


def test_the_korean_readme_is_the_english_one():
    english, korean = (
        (ROOT / name).read_text(encoding="utf-8")
        for name in ("README.md", "README.ko.md")
    )

    def levels(text):
        return re.findall(r"^(#+) ", FENCE.sub("", text), re.MULTILINE)

    def rows(text):
        return len(re.findall(r"^\|", FENCE.sub("", text), re.MULTILINE))

    def targets(text):
        found = [target for _, target in LINK.findall(FENCE.sub("", text))]
        return [target for target in found if not target.startswith("README")]

    assert FENCE.findall(korean) == FENCE.findall(english)
    assert levels(korean) == levels(english)
    assert rows(korean) == rows(english)
    assert targets(korean) == targets(english)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_the_hooks_before_a_commit_are_the_linters_of_make_test():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    linter = re.compile(r"(?:-m |\.venv/bin/)(ruff \w+|mypy|lint-imports)")
    checked = makefile.partition("\ntest test-all:")[2].partition("-m pytest")[0]
    assert linter.findall(hooks) == linter.findall(checked) != []


def test_the_citation_is_of_this_version_and_of_the_projects_own_address():
    import d2l_autorec

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert str(cited["version"]) == d2l_autorec.__version__
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'license = "{cited["license"]}"' in project
    urls = project.partition("\n[project.urls]\n")[2].partition("\n[")[0]
    repository = re.search('(?m)^Repository = "(.+)"', urls)
    assert cited.get("repository-code") == (repository and repository[1])
