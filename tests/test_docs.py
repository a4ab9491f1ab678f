"""The documents: what they name is there, and runs; both languages say the same."""

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from configparser import ConfigParser
from functools import cache
from pathlib import Path

import pytest
import yaml
from conftest import write_u_data

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "d2l_autorec"
SETUP = ConfigParser(interpolation=None)
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")
METADATA = SETUP["metadata"]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "README.ko.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "ko").glob("*.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!`)\[([^\]]*)\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:\bpython -m d2l_autorec[. ]|\bd2l-autorec )(\w[^&|>\n]*)")
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


@every_document
def test_python_imports_the_package_before_mxnet(document):
    for language, code in FENCE.findall(document.read_text(encoding="utf-8")):
        if language == "python" and "d2l_autorec" in code:
            first = re.search(r"^(?:import|from) (mxnet|d2l_autorec)", code, re.M)
            assert first and first[1] == "d2l_autorec", code


def test_the_map_names_every_room_and_fits_a_screen():
    text = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
    rooms = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    found = re.findall(r"^\| \[`(\w+)/`\]\(\.\./d2l_autorec/\1\)", text, re.M)
    assert sorted(found) == sorted(rooms)
    assert len(text.splitlines()) <= 65


def english(document: Path) -> Path:
    """The page that a Korean one is a translation of; others are their own."""
    parts = [part.replace(".ko.", ".") for part in document.relative_to(ROOT).parts]
    folder, *rest = parts
    if folder == "docs" and rest[0] == "ko":
        rest = rest[1:]
    return ROOT.joinpath(folder, *rest)


def outline(document: Path) -> dict[str, list]:
    """What a page and its translation have in common."""
    text = prose(document)
    targets = []
    for _, target in LINK.findall(text):
        path, hash_mark, anchor = target.partition("#")
        if path and not re.match(r"\w+:", path):
            file = english((document.parent / path).resolve())
            # Headings of a README are translated, and the names of their places.
            readme = file.name == "README.md"
            target = f"{file}{'' if readme else hash_mark + anchor}"
        targets.append(target)
    return {
        "code": FENCE.findall(document.read_text(encoding="utf-8")),
        "headings": re.findall(r"^(#+) ", text, re.MULTILINE),
        "tables": [row.count("|") for row in re.findall(r"^\|.*", text, re.MULTILINE)],
        "links": targets,
        "items": re.findall(r"^(-|\d+\.) ", text, re.MULTILINE),
    }


@pytest.mark.parametrize(
    "korean", [d for d in DOCUMENTS if english(d) != d], ids=lambda d: d.name
)
def test_a_korean_page_is_in_step_with_the_english_one(korean):
    assert outline(korean) == outline(english(korean))


def test_pages_for_readers_are_in_both_languages():
    pages = {d.name for d in DOCUMENTS if d.name.startswith("for-")} | {"top-n.md"}
    assert {d.name for d in (ROOT / "docs" / "ko").iterdir()} == pages


def commands(document: Path) -> list[str]:
    """The commands of the package in a page's blocks of code, with their flags."""
    text = re.sub(r"\\\n\s*", "", document.read_text(encoding="utf-8"))
    blocks = [block for _, block in FENCE.findall(text)]
    found = [command for block in blocks for command in COMMAND.findall(block)]
    # Of a command in quotes, the closing ones.
    return [text.rstrip('"') if text.count('"') % 2 else text for text in found]


@every_document
def test_commands_have_the_flags_that_are_named(document, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    for command in commands(document):
        name, *flags = shlex.split(command, comments=True)
        parser = importlib.import_module(f"d2l_autorec.commands.{name}").make_parser()
        try:
            parser.parse_args(flags)
        except SystemExit:
            pytest.fail(f"{command}: {capsys.readouterr().err}")


PAGES = ["for-readers", "side-by-side", "ko/for-readers"]


def printed_by_the_script(page: str, capsys) -> tuple[str, str]:
    """A page, and the first line that its chapter in a script prints."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    codes = [code for _, code in FENCE.findall(text)]
    (script,) = (code for code in codes if "seed_everything(0)" in code)
    exec(script, {})
    return text, capsys.readouterr().out.splitlines()[0]


def test_the_chapter_in_a_script_has_one_result_on_all_pages(small_data, capsys):
    lines = {printed_by_the_script(page, capsys)[1] for page in PAGES}
    assert len(lines) == 1
    assert re.fullmatch(r"train loss \d\.\d+, test RMSE \d\.\d+", lines.pop())


def test_the_pages_state_the_results_of_script_and_command(real_ml_100k, capsys):
    _, line = printed_by_the_script("for-readers", capsys)
    importlib.import_module("d2l_autorec.train").main(["--quiet"])
    (ours,) = (
        x for x in capsys.readouterr().out.splitlines() if x.startswith("train loss")
    )
    for page in PAGES:
        text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
        for result in (line, ours):
            assert result.split()[-1] in text
    assert f"\n{ours}\n" in (ROOT / "README.md").read_text(encoding="utf-8")


# Installs, opens a folder of an installation, or runs until it is interrupted.
NOT_RUN = re.compile(
    r"make |\. |jupyter |\.venv/|python3? -m (pip|venv) |d2l-autorec demo "
)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "page", ["README", "docs/for-readers", "docs/for-researchers", "docs/for-ratings"]
)
def test_a_page_runs_by_its_text_alone(start, page, tmp_path):
    data = write_u_data(tmp_path / "data", num_users=50)
    items = "".join(f"{item}|Item {item}\n" for item in range(1, 61))
    (data / "ml-100k" / "u.item").write_text(items)
    with (data / "ml-100k" / "u.data").open("a") as file:
        # As of real ratings, some items are in a part alone.
        file.writelines(f"{item - 40}\t{item}\t3\t1\n" for item in range(41, 61))
    ratings = (data / "ml-100k" / "u.data").read_text().replace("\t", ",")
    (tmp_path / "my-ratings.csv").write_text(ratings)  # which a README may assume
    script = ["set -e"]
    for language, code in FENCE.findall((ROOT / f"{page}.md").read_text("utf-8")):
        if language == "python":
            script.append(f"python - <<'PYTHON'\n{code}PYTHON")
        elif language in ("sh", "bash"):
            lines = code.splitlines()
            script += [line for line in lines if not NOT_RUN.match(line)]
    process = start(
        *("-c", "import os, sys; os.execvp('bash', ['bash', '-c', sys.argv[1]])"),
        "\n".join(script),
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "D2L_AUTOREC_DATA": str(data),
        },
        stderr=subprocess.STDOUT,
    )
    out, _ = process.communicate(timeout=800)
    assert process.returncode == 0, out[-2000:]


def docstrings():
    """Each docstring of the package, with the names that the code uses anywhere."""
    names, found = set(), []
    for file in PACKAGE.rglob("*.py"):
        names.update(file.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                found.append((file.name, ast.get_docstring(node) or ""))
            for kind in ("name", "id", "arg", "attr"):
                names.update(str(getattr(node, kind, "")).split("."))
    return names, found


def test_names_in_docstrings_are_there():
    names, found = docstrings()
    wrong = [
        (file, name)
        for file, text in found
        for name in re.findall(r"(?<![`:\w])`([A-Za-z_][\w.]*)`(?!`)", text)
        if not names.issuperset(name.split("."))
    ]
    assert not wrong


def test_the_reference_has_a_page_for_each_room():
    pages = {file.stem for file in (ROOT / "docs" / "api").glob("*.rst")}
    rooms = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert pages == rooms - {"commands"} | {"index", "chapter"}
    listed = (ROOT / "docs" / "api" / "index.rst").read_text().split()
    assert pages - {"index"} <= set(listed)


def test_the_reference_has_every_name_of_the_package():
    text = (ROOT / "docs" / "api" / "chapter.rst").read_text()
    rooms = re.findall(
        r"from \.(\w+) import (\w+)", (PACKAGE / "__init__.pyi").read_text()
    )
    for room, name in rooms:
        assert (PACKAGE / room).is_dir() or re.search(rf"\b{name}\b", text), name


@pytest.mark.slow
def test_the_reference_is_built_without_a_broken_link(run, tmp_path):
    done = run("-m", "sphinx", "-q", "-W", "-E", ROOT / "docs" / "api", tmp_path)
    assert done == (0, "", "")


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


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
    assert cited["license"] == METADATA["license_expression"]
    urls = dict(re.findall("(?m)^(.+?) *= *(.+)$", METADATA["project_urls"]))
    assert cited.get("repository-code") == urls.get("Repository")


# Where a range of Pythons, or a line that installs, is written.
WRITTEN = [
    *DOCUMENTS,
    *(ROOT / name for name in ("Makefile", "Dockerfile", "setup.cfg")),
    *sorted((ROOT / "notebooks").glob("*/*.ipynb")),
]


every_file = pytest.mark.parametrize(
    "file", WRITTEN, ids=lambda f: "/".join(f.parts[-2:])
)


@every_file
def test_pythons_that_are_named_are_those_of_the_package(file):
    first, end = re.findall(r"3\.(\d+)", SETUP["options"]["python_requires"])
    text = " ".join(file.read_text(encoding="utf-8").split())
    found = re.findall(r"\b3\.(\d+)(?: to |부터 )3\.(\d+)", text)
    allowed = [[first, str(int(end) - 1)]]
    if re.search("Intel Mac|인텔 맥", text):
        allowed.append([first, "13"])  # there, Numba has no wheel for newer ones
    assert not [pair for pair in found if sorted(pair) not in allowed]


def test_every_python_of_the_package_is_tried():
    first, end = map(int, re.findall(r"3\.(\d+)", SETUP["options"]["python_requires"]))
    pythons = [f"3.{minor}" for minor in range(first, end)]
    assert re.findall(r"Python :: (.+)", METADATA["classifiers"]) == pythons
    ci = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert ci["jobs"]["test"]["strategy"]["matrix"]["python"] == pythons
    tried = re.search("(?m)^PYTHONS .+", (ROOT / "Makefile").read_text())
    assert re.findall(r"python(3\.\d+)", tried[0]) == pythons[::-1]


def test_every_python_gets_the_same_packages():
    assert "python_version" not in SETUP["options"]["install_requires"]
    assert not any(
        "python_version" in x for x in SETUP["options.extras_require"].values()
    )


@every_file
def test_mxnet_and_d2l_are_installed_without_what_they_pin(file):
    text = file.read_text(encoding="utf-8")
    lines = [x for x in text.splitlines() if re.search(r"(mxnet|d2l)[\w-]*==", x)]
    assert not [line for line in lines if "--no-deps" not in line]
    assert not re.search(r"--editable \.\W", text) or lines
