"""The notebooks: one code for all languages, and a whole run."""

import ast
import json
import re
from functools import cache
from importlib import util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp

from d2l_autorec import topn
from d2l_autorec.notebook import WORDS, Lists, read_data
from d2l_autorec.study import Records, experiments

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
SPEC = util.spec_from_file_location("build", NOTEBOOKS / "build.py")
build = util.module_from_spec(SPEC)
SPEC.loader.exec_module(build)

SMALL = {
    "autorec": {},
    "recommendations": {},
    "exercises": {
        "seeds": [0, 1],
        "hidden_sizes": [2, 4],
        "architectures": [[4], [4, 4]],
        "encoder_activations": ["relu"],
        "decoder_activations": ["identity", "sigmoid"],
        "max_epochs": 2,
    },
    "paper": {"only": ["hidden-10", "hidden-20"]},
}
# The chapter's settings stand in its cells, as in the book.
SHORT = [
    ("AutoRec(500,", "AutoRec(8,"),
    ("= 25, ", "= 2, "),
    ("trainer, 20,", "trainer, 1,"),
]
# What a reader does at the end: move all sliders, to where `of_new` is asked directly.
MOVE = """
for slider in sliders.values():
    slider.value = slider.options[1][1]
print(lists.of_new({i: s.value for i, s in sliders.items()}))
"""
NUM_PLOTS = {"autorec": 3, "recommendations": 0, "exercises": 3, "paper": 4}
STUDY = NOTEBOOKS.parent / "docs" / "results" / "ml-1m.json"
ALL = [(name, language) for name in build.NAMES for language in build.LANGUAGES]
# The other languages carry the same code, as a test of its own says.
RUN = [
    pytest.param(name, language, marks=[pytest.mark.slow] if language != "en" else [])
    for name, language in ALL
]


def outputs(notebook):
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    return [output for cell in cells for output in cell.outputs]


def printed(notebook):
    return "".join(o.text for o in outputs(notebook) if o.output_type == "stream")


def plots(notebook):
    return [o for o in outputs(notebook) if "image/png" in o.get("data", {})]


def shown(notebook, cell_id):
    (cell,) = (c for c in notebook.cells if c.id == cell_id)
    return "".join(o.get("text") or o.data["text/plain"] for o in cell.outputs)


@pytest.mark.parametrize("name", build.NAMES)
@pytest.mark.parametrize("language", ["ko", "pt"])
def test_the_languages_carry_the_same_code_and_their_own_prose(name, language):
    english, other = build.load("en", name), build.load(language, name)

    def skeleton(notebook):
        return [
            (c.id, c.cell_type, c.cell_type == "code" and (c.source, c.metadata))
            for c in notebook.cells
        ]

    assert skeleton(other) == skeleton(build.translated(english, other, language))
    for cell, translation in zip(english.cells, other.cells):
        assert cell.cell_type == "code" or cell.source != translation.source


@pytest.mark.parametrize(("name", "language"), ALL)
def test_formulas_are_the_same_in_every_language(name, language):
    def formulas(notebook):
        text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
        return [
            "".join(formula.split())
            for formula in re.findall(r"\$\$.+?\$\$", text, re.DOTALL)
        ]

    assert formulas(build.load(language, name)) == formulas(build.load("en", name))


def test_the_chapter_is_as_thin_as_the_books():
    cells = [c for c in build.load("en", "autorec").cells if c.cell_type == "code"]
    code = "\n".join(cell.source for cell in cells)
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 90
    nodes = list(ast.walk(ast.parse(code)))
    assert not [n for n in nodes if isinstance(n, (ast.Try, ast.Raise, ast.AnnAssign))]
    assert not [n for n in nodes if getattr(n, "annotation", None)]
    own = [line for line in code.splitlines() if re.match("(import|from) d2l", line)]
    assert len(own) == 1


@pytest.mark.parametrize(("name", "language"), ALL)
def test_the_committed_outputs_are_of_a_clean_run(name, language):
    notebook = build.load(language, name)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    assert not [o for o in outputs(notebook) if o.get("name") == "stderr"]
    assert not [o for o in outputs(notebook) if o.output_type == "error"]
    assert len(plots(notebook)) == NUM_PLOTS[name]
    assert "ml-100k" in printed(notebook)
    text = str(outputs(notebook))
    assert not re.search(r"/(home|root|tmp|work|Users)/|it/s\]|epoch/s", text)


@pytest.mark.parametrize("language", build.LANGUAGES)
def test_the_committed_paper_notebook_shows_the_committed_study(language):
    study = Records(STUDY, "")  # which are shown, be they of older code
    lines = shown(build.load(language, "paper"), "reached").splitlines()
    for experiment in experiments().values():
        if experiment.published is None:
            continue

        def found(wd, part, split, experiment=experiment):
            settings = experiment.settings(wd)
            (record,) = study.find(split=f"seed {split}", part=part, settings=settings)
            return record["rmse"]

        wd, *others = experiment.wds
        if others:
            wd = min(experiment.wds, key=lambda wd: found(wd, "validation", 0))
        splits = range(experiment.num_splits or 5)
        rmse = [found(wd, "test", split) for split in splits]
        (line,) = (x for x in lines if x.startswith(f"{experiment.title}  "))
        assert f"{np.mean(rmse):.4f}" in line


def test_the_committed_result_is_the_same_in_every_language():
    results = {shown(build.load(lang, "autorec"), "result") for lang in build.LANGUAGES}
    assert len(results) == 1
    assert float(re.search(r"AutoRec, test RMSE (\S+)", results.pop())[1]) <= 0.91


def made_up(experiment, number, part, split):
    """The last weight decay is the best; U-AutoRec is far below what is published."""
    if part == "validation":
        return 0.9 - number / 100
    if experiment.published is None:
        return 0.95 - int(experiment.title.split()[0]) / 5000
    return experiment.published - (experiment.title == "U-AutoRec") / 10 + split / 500


@pytest.fixture(scope="module")
def study_file(tmp_path_factory):
    """A study of five splits, made up, where a project has it."""
    trainings = [
        {
            "title": experiment.title,
            "split": f"seed {split}",
            "part": part,
            "settings": experiment.settings(wd),
            "rmse": made_up(experiment, number, part, split),
            "seconds": 60.0,
        }
        for experiment in experiments().values()
        for number, wd in enumerate(experiment.wds)
        for part, split in (("validation", 0), *(("test", n) for n in range(5)))
        if part == "validation" or wd == experiment.wds[-1]
    ]
    file = tmp_path_factory.mktemp("project") / "docs" / "results" / "ml-1m.json"
    file.parent.mkdir(parents=True)
    about = {"command": "command", "machine": "machine", "python": "3.9", "date": "day"}
    file.write_text(json.dumps({**about, "trainings": trainings}))
    return file


@pytest.fixture(scope="module")
def ran(study_file):
    """Run a notebook on synthetic ratings with small parameters, but only once."""
    small = {**SMALL, "paper": {**SMALL["paper"], "results": str(study_file)}}

    @cache
    def ran(name, language):
        notebook = build.load(language, name)
        for cell in notebook.cells:
            for settings, short in SHORT if name == "autorec" else ():
                cell.source = cell.source.replace(settings, short)
        if name == "recommendations":
            notebook.cells.append(build.nbformat.v4.new_code_cell(MOVE, id="move"))
        return build.run(notebook, dataset="synthetic-100k", **small[name])

    return ran


@pytest.mark.parametrize(("name", "language"), RUN)
def test_it_runs_top_to_bottom_without_a_warning(ran, name, language):
    notebook = ran(name, language)
    assert not [o for o in outputs(notebook) if o.get("name") == "stderr"]
    assert not [o for o in outputs(notebook) if build.WIDGET in str(o)]
    assert len(plots(notebook)) == NUM_PLOTS[name]


@pytest.mark.parametrize(("name", "language"), RUN)
def test_generated_ratings_are_named_beside_every_result(ran, name, language):
    cells = ran(name, language).cells
    if name == "paper":  # whose first part shows the study, of real ratings
        cells = cells[[cell.id for cell in cells].index("load") :]
    banner, _, _ = WORDS[language]["synthetic"].partition(":")
    assert banner in printed(ran(name, language))
    for cell in cells:
        text = "".join(o.get("text", "") for o in cell.get("outputs", []))
        if "RMSE" in text:
            assert re.search("synthetic|SYNTHETIC", text), cell.id


def test_the_list_follows_the_sliders(ran):
    """Its cell shows what it became when they were moved."""
    cells = ran("recommendations", "en").cells
    (played, moved) = (c for c in cells if c.id in ("play", "move"))
    assert played.outputs[-1].data["text/plain"] == moved.outputs[0].text.rstrip()


@pytest.mark.parametrize("language", build.LANGUAGES)
def test_well_known_films_are_found_and_listed_in_the_language(language):
    notebook = build.load(language, "recommendations")
    assert "5 ★ Star Wars (1977)" in shown(notebook, "play")
    for cell in ("list", "play"):
        assert WORDS[language]["title"] in shown(notebook, cell)
        assert WORDS[language]["popular"] in shown(notebook, cell)


def test_the_lists_of_the_exercises_are_measured_as_the_package_does(ran):
    """On the generated ratings: their cells, and popularity by the package."""
    cells = {c.id: c.source for c in build.load("en", "exercises").cells}
    parameters = cells["parameters"].replace("ml-100k", "synthetic-100k")
    names = {}
    for code in (parameters, cells["imports"], cells["lists-pairs"]):
        exec(code, names)
    train, test = (sp.csr_matrix(names[n].T) for n in ("train_rows", "test_rows"))
    model = topn.Popularity().fit(train)
    found = topn.evaluate(model, train, test, [10]).mean["ndcg@10"]
    ours = names["ndcg"](np.tile(names["train_rows"].sum(axis=0), (train.shape[1], 1)))
    assert ours == pytest.approx(found)
    assert f"popularity, nDCG@10 {found:.3f}" in shown(ran("exercises", "en"), "lists")


@pytest.fixture
def lists():
    """Lists of a model that recommends item 7; items 5, 6, 7 have 3, 2, 1 ratings."""
    train_mat = sp.csr_matrix([[5, 4, 3], [0, 2, 1], [0, 0, 5]], dtype=np.float32)
    parts = SimpleNamespace(
        train_mat=train_mat,
        item_ids=np.array([5, 6, 7]),
        user_ids=np.array([1, 2, 3]),
        titles={5: "Toy Story (1995)"},
        rating_offset=0.0,
    )
    best = [SimpleNamespace(item_id=7, rating=4.567)]
    predictor = SimpleNamespace(
        run=SimpleNamespace(parts=parts),
        recommend=lambda *args, **kwargs: best,
        recommend_new=lambda *args, **kwargs: best,
    )
    return Lists(predictor, "pt")


@pytest.mark.parametrize(
    ("table", "popular"),
    [
        (lambda lists: lists.of(1), ["item 6", "item 7"]),
        (lambda lists: lists.of_new({6: 5}), ["Toy Story (1995)", "item 7"]),
    ],
    ids=["of a user", "of new ratings"],
)
def test_the_most_rated_items_beside_a_list_are_unrated_ones(lists, table, popular):
    found = table(lists)
    assert found["mais avaliados"].tolist() == popular
    assert found.iloc[0, :2].tolist() == ["item 7", 4.57]


def test_sliders_begin_with_well_known_films_and_offer_the_ratings_of_the_data(lists):
    sliders = lists.sliders()
    assert [s.description for s in sliders.values()][0] == "Toy Story (1995)"
    assert list(sliders) == [5, 6, 7]
    labels = [label for label, _ in sliders[6].options]
    assert labels == ["sem nota", "1 ★", "2 ★", "3 ★", "4 ★", "5 ★"]


def test_any_data_set_is_read_with_ids_from_1(offline, capsys):
    data, num_users, num_items = read_data("ml-latest-small", "ko")
    assert data.attrs["name"] == "synthetic-100k"
    assert WORDS["ko"]["synthetic"] in capsys.readouterr().out
    assert sorted(data["user_id"].unique()) == list(range(1, num_users + 1))
    assert sorted(data["item_id"].unique()) == list(range(1, num_items + 1))


def test_what_the_study_reached_follows_from_its_results(ran):
    notebook = ran("paper", "en")
    reached = shown(notebook, "reached")
    assert re.search(r"^I-AutoRec .+ missed by 0.0040$", reached, re.M)
    assert re.search(r"^U-AutoRec .+ yes$", reached, re.M)
    orders = shown(notebook, "orders")
    assert "item-based below user-based: DOES NOT HOLD" in orders
    assert "the four pairs f, g: holds" in orders
    (wd,) = experiments()["user"].wds
    assert re.search(rf"^U-AutoRec .+ 5 +{wd}$", shown(notebook, "a"), re.M)


def test_the_study_is_found_above_the_notebooks_folder(study_file, monkeypatch):
    cells = {c.id: c.source for c in build.load("en", "paper").cells}
    folder = study_file.parents[2] / "notebooks" / "en"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    names = {}
    exec(cells["parameters"] + "\n" + cells["imports"], names)
    assert names["file"] == study_file
    names["results"] = "nowhere.json"
    with pytest.raises(FileNotFoundError, match="d2l_autorec.paper|d2l-autorec paper"):
        exec(cells["imports"], names)
