"""A report as its readers find it: files, page, refusals."""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from emofuse.errors import ResultsError
from emofuse.report import ReportFiles, SearchedConfiguration, SearchSummary, write_report
from emofuse.results import run_dir

CLASSES = ("joy", "fear")
VOID = {"meta", "img", "wbr"}


class Page(HTMLParser):
    """Elements, attributes and text of a page; fails on elements that are not closed in order."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.links, self.text, self.alarms, self._open = [], [], "", [], []
        self.scripts, self.data, self.policy = [], [], ""
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in {"src", "href"}]
        if dict(attrs).get("http-equiv") == "Content-Security-Policy":
            self.policy = dict(attrs)["content"]
        if tag == "script":  # what a browser runs, or data for it
            (self.data if "type" in dict(attrs) else self.scripts).append("")
        if tag not in VOID:
            self._open.append((tag, "data" if tag == "script" and "type" in dict(attrs) else dict(attrs).get("class")))

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        where = self._open[-1] if self._open else None
        if where and where[0] == "script":
            (self.data if where[1] == "data" else self.scripts)[-1] += data
            return
        if where and where[0] == "style":
            return
        self.text += data
        if ("div", "alarm") in self._open:
            self.alarms.append(data)


@pytest.fixture
def make(make_run):
    def make(name="a", streams=("resnet50",), **how):
        return make_run(name, streams, **{"classes": CLASSES, "rows": 100, "epochs": 3, **how})

    make.folder = make_run.folder
    return make


def read_page(files):
    return Page(files.page.read_text(encoding="utf-8"))


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("blank_figures")
def test_names_break_between_their_parts_only(make, tmp_path):
    make("LBP+ResNet-50 <b>", ("lbp", "resnet50"))
    page = write_report(make.folder, tmp_path / "out").page.read_text(encoding="utf-8")
    assert 'LBP+<wbr><span class="whole">ResNet-50</span> &lt;b&gt;' in page


def test_a_report_has_page_tables_and_figures(make, tmp_path):
    make("a")
    make("b + c", ("lbp", "resnet50"))
    files = write_report(make.folder, tmp_path / "new" / "out")
    assert files == ReportFiles.in_folder(tmp_path / "new" / "out")
    stems = ["progression", "f1_change", "f1_bars", "difference_b-c", "training", "losses"]
    stems += [f"{kind}_{item}" for kind in ("confusion", "classes", "normalised") for item in ("a", "b-c")]
    figures = {f"figures/{stem}.{ending}" for stem in stems for ending in ("svg", "png", "pdf")}
    of_paper = ["scores", "comparisons", "further_scores", "per_class_a", "per_class_b-c", "f1_by_class", "efficiency"]
    of_paper += ["labels", "streams", "missing"]
    tables = {"index.html", "summary.md", "summary.csv", "per_class.md", "per_class.csv", "runs.csv", "comparisons.csv"}
    tables |= {"report.json", "confusion.csv", "curves.csv", "samples.csv", "weights.csv", "tables/all_tables.tex"}
    tables |= {f"tables/{stem}.{ending}" for stem in of_paper for ending in ("csv", "md", "tex")}
    assert set(contents(tmp_path / "new" / "out")) == figures | tables
    assert all(path.exists() for path in files)
    page = read_page(files)
    embedded = [link for link in page.links if link.startswith("data:image/svg+xml")]
    assert len(embedded) == len(stems) - 2  # the tables of the confusion matrices show what `normalised_` shows
    first = unquote(embedded[0].partition(",")[2])
    drawn = (files.figures / "progression.svg").read_text(encoding="utf-8")
    assert first.split() == drawn.split()
    assert "Table 1. Scores on the test split." in page.text
    assert "Figure 1. Accuracy and macro F1" in page.text
    assert "Table 2. Comparisons on the same test images." in page.text


def test_the_same_runs_give_the_same_bytes(make, tmp_path):
    make("a")
    make("b", random_weights=("resnet50",))
    for out in ("one", "two"):
        write_report(make.folder, tmp_path / out, search=SEARCH)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_the_page_needs_no_network_and_allows_its_own_script_alone(make, tmp_path):
    make("a")
    files = write_report(make.folder, tmp_path / "out")
    page = read_page(files)
    (script,) = page.scripts
    own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    packed = base64.b64decode(next(text for text in page.data if len(text) > 1_000_000))
    library = base64.b64encode(hashlib.sha256(gzip.decompress(packed)).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in page.policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == f"'sha256-{own}' 'sha256-{library}'"
    assert all(link.startswith(("data:", "#")) for link in page.links)
    html = files.page.read_text(encoding="utf-8")
    assert not re.search(r"@import|url\(|https?://", html)


@pytest.mark.usefixtures("blank_figures")
def test_the_page_has_landmarks_a_skip_link_and_headings_in_order(make, tmp_path):
    make("a")
    make("b", ("lbp", "resnet50"))
    html = write_report(make.folder, tmp_path / "out").page.read_text(encoding="utf-8")
    for landmark in ("<header>", '<main id="main"', "<footer>", '<nav aria-label="', '<a class="skip" href="#main">'):
        assert html.count(landmark) == 1
    levels = [int(level) for level in re.findall(r"<h(\d)", html.partition("<dialog")[0])]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert html.count("<table") == html.count("<caption")
    assert re.findall(r"<img(?![^>]*\balt=\"[^\"]+\")[^>]*>", html) == []
    assert re.findall(r"<th(?!ead)(?![^>]*scope)[^>]*>", html) == []


def test_names_are_escaped_wherever_they_stand(make, tmp_path):
    evil = "<script>alert('x')</script>"
    stream = {"kind": evil, "digest": "1" * 64, "dim": 3, "used_dim": 3, "weights": None}
    dataset = {"name": evil, "kind": evil, "notes": [evil]}
    change = {"notes": [f"note {evil}"], "versions": {"emofuse": evil}, "machine": {"platform": evil}}
    change["streams"] = {evil: stream}
    make(evil, (evil,), classes=(evil, "a|b"), dataset=dataset, change=change)
    files = write_report(make.folder, tmp_path / "out", title=evil, command=evil)
    page = read_page(files)
    assert len(page.scripts) == 1
    assert all("<" not in text for text in page.data)
    assert json.loads(page.data[0])["classes"][0] == evil
    assert page.text.count(evil) > 12
    for path in (files.summary_markdown, files.per_part_markdown):
        assert "<script>" not in path.read_text(encoding="utf-8")
    assert "| a\\|b " in files.per_part_markdown.read_text(encoding="utf-8")


@pytest.mark.usefixtures("blank_figures")
def test_random_weights_stand_in_a_red_box_and_in_every_table_file(make, tmp_path):
    make("a", ("lbp",))
    make("b", random_weights=("resnet50",))
    files = write_report(make.folder, tmp_path / "out")
    page = read_page(files)
    assert page.alarms[0] == "RANDOM WEIGHTS: A DEMONSTRATION, NOT A FINDING"
    assert page.alarms[1].startswith("The extractors of resnet50 ran with random instead of pretrained weights. b uses")
    for path in (files.summary_markdown, files.per_part_markdown):
        assert "> **RANDOM WEIGHTS: a demonstration, not a finding.** The" in path.read_text(encoding="utf-8")
    assert "resnet50 (random weights)" in files.summary_markdown.read_text(encoding="utf-8")
    for path in (files.summary_csv, files.per_part_csv, files.runs_csv):
        assert "random_weights" in path.read_text(encoding="utf-8").splitlines()[0]


@pytest.mark.usefixtures("blank_figures")
def test_pretrained_weights_raise_no_alarm(make, tmp_path):
    make("a")
    files = write_report(make.folder, tmp_path / "out")
    assert read_page(files).alarms == []
    assert "RANDOM" not in files.summary_markdown.read_text(encoding="utf-8")


@pytest.mark.usefixtures("blank_figures")
def test_the_page_tells_data_streams_method_and_versions(make, tmp_path):
    missing = {"objects": {"no_detection": 10**6}}
    dataset = {"name": "my faces", "kind": "csv", "rows": 104, "bad_rows": 4, "notes": ["Two labels were merged."]}
    run = make("a", ("places365", "objects"), missing=missing, dataset=dataset, change={"notes": ["A note."]})
    text = read_page(write_report(make.folder, tmp_path / "out", command="emofuse run mine")).text
    for expected in (
        "Fusion configurations on my faces",
        "train 70, validation 20, test 10",
        "4, kept and marked unreadable",
        "Two labels were merged.",
        "A note.",
        "Stream objects has no valid row: none of 100 rows has features of it. a learned nothing from it.",
        "70 (100.0\u00a0%)",
        run.streams["places365"]["weights"]["sha256"][:12],
        "Training minimises cross-entropy by Adam",
        "2.4.0",
        "Linux-x86_64",
        "emofuse run mine",
        '"batch_size": 64',
        run.digest[:16],
    ):
        assert expected in text


SEARCH = SearchSummary(
    "grid",
    "macro_f1",
    (SearchedConfiguration("a", {"x": 1}, 0.5, 0.1, 5, chosen=True), SearchedConfiguration("b", {"x": 2}, 0.4, 0.1, 5)),
    heads=10,
)


@pytest.mark.usefixtures("blank_figures")
def test_a_report_of_a_search_says_how_it_was_chosen(make, tmp_path):
    make("a")
    files = write_report(make.folder, tmp_path / "out", search=SEARCH)
    assert files == ReportFiles.in_folder(tmp_path / "out", search=True)
    assert all(path.exists() for path in files)
    page, summary = read_page(files), files.summary_markdown.read_text(encoding="utf-8")
    for text in (page.text, summary):
        assert "The search tried every combination of the factors: 2 configurations, 10 trained heads." in text
    assert "#choice" in page.links
    assert re.search(r"^\| a +\| +1 \| +0\.5000 ± 0\.1000 \| +5 \| – +\| chosen \|$", summary, re.MULTILINE)
    assert files.search_csv.read_text(encoding="utf-8").splitlines()[1] == "1,a,yes,0.5,0.1,5,0,0,0,0,1"
    assert (files.figures / "search.svg").is_file()


@pytest.mark.usefixtures("blank_figures")
def test_a_report_without_a_search_says_nothing_of_one_and_removes_what_a_former_one_said(make, tmp_path):
    make("a")
    write_report(make.folder, tmp_path / "out", search=SEARCH)
    files = write_report(make.folder, tmp_path / "out")
    assert files.search_csv is None
    assert not {"search.csv", "figures/search.svg", "figures/search.png"} & set(contents(tmp_path / "out"))
    assert "#choice" not in read_page(files).links


@pytest.mark.usefixtures("blank_figures")
def test_intervals_and_tests_stand_on_the_page_and_in_the_summary_with_how_they_were_made(make, tmp_path):
    for name, skill in (("base", 0.3), ("a", 0.9)):
        make(name, skill=skill, rows=400)
    files = write_report(make.folder, tmp_path / "out")
    page, summary = read_page(files).text, files.summary_markdown.read_text(encoding="utf-8")
    for text in (page, summary):
        assert re.search(r"0\.\d{3} \[0\.\d{3}, (0\.\d{3}|1\.000)\]", text)
        assert re.search(r"\+0\.\d{3} \[[+−]0\.\d{3}, \+0\.\d{3}\]", text)
        assert "Percentile bootstrap: each of 2,000 resamples (PCG64, seed 0) draws" in text
        assert "Holm's step-down method; the family is the 1 comparison of this table (with the baseline)" in text
    assert files.comparisons_csv.read_text(encoding="utf-8").startswith("configuration,baseline,accuracy_difference,")


@pytest.mark.usefixtures("blank_figures")
def test_a_report_compares_what_is_asked_for_and_says_which(make, tmp_path):
    for name, skill in (("base", 0.3), ("a", 0.9), ("b", 0.4)):
        make(name, skill=skill, rows=400)
    files = write_report(make.folder, tmp_path / "out", compare=["a=b"])
    page = read_page(files).text
    assert "Compared with" in page
    assert "the 3 comparisons of this table (with the baseline and those that were asked for)" in page
    found = json.loads(files.numbers_json.read_text(encoding="utf-8"))["comparisons"]
    assert [(row["configuration"], row["baseline"]) for row in found] == [("a", "base"), ("b", "base"), ("a", "b")]
    assert found[2]["accuracy_difference"] > 0
    assert found[2]["accuracy_p"] <= found[2]["accuracy_p_holm"]
    lines = files.comparisons_csv.read_text(encoding="utf-8").splitlines()
    assert lines[3].startswith("a,b,0.")


@pytest.mark.usefixtures("blank_figures")
def test_a_report_without_predictions_is_written_and_says_what_it_lacks(make, tmp_path):
    run = make("a")
    make("b")
    path = run_dir(make.folder, run.digest) / "predictions.npz"
    path.unlink()
    files = write_report(make.folder, tmp_path / "out")
    for text in (read_page(files).text, files.summary_markdown.read_text(encoding="utf-8")):
        assert f"a has no interval and no comparison: {path}: missing or damaged" in text
        assert "Nothing is compared with the baseline a, because its predictions cannot be used." in text
    assert "Comparisons on the same test images" not in read_page(files).text


@pytest.mark.usefixtures("blank_figures")
def test_a_report_of_many_configurations_folds_its_long_tables(make, tmp_path):
    for index in range(14):
        make(f"c{index:02}", rows=60)
    files = write_report(make.folder, tmp_path / "out")
    page = read_page(files)
    assert page.text.count("Confusion matrix of") >= 6
    assert "Of 14 configurations, the 6 best by validation macro F1" in page.text
    assert "Precision, recall and specificity of all configurations" in page.text
    assert page.text.index("Figure 1. All configurations") < page.text.index("Table 1. Scores")
    assert files.per_part_csv.read_text(encoding="utf-8").count("\n") == 1 + 14 * 2
    figures = len(list((tmp_path / "out" / "figures").glob("confusion_*.svg")))
    assert figures == files.page.read_text(encoding="utf-8").count('<table class="confusion"')
    assert figures in (6, 7)


@pytest.mark.usefixtures("blank_figures")
def test_title_baseline_and_order_are_taken_as_given(make, tmp_path):
    for name in ("a", "b", "c"):
        make(name)
    files = write_report(make.folder, tmp_path / "out", title="Mine", baseline="b", order=["c", "b", "a"])
    page, summary = read_page(files), files.summary_markdown.read_text(encoding="utf-8")
    assert page.text.count("Mine") == 2
    assert summary.startswith("# Mine\n")
    assert re.findall(r"^\| ([abc]) ", summary, re.MULTILINE)[:3] == ["c", "b", "a"]
    assert "Δ is the difference to b, " in summary


@pytest.mark.usefixtures("blank_figures")
def test_only_the_runs_asked_for_are_reported(make, tmp_path):
    kept = make("kept")
    make("other")
    files = write_report(make.folder, tmp_path / "out", only={kept.digest})
    assert files.runs_csv.read_text(encoding="utf-8").count("\n") == 2


def test_runs_that_are_asked_for_and_absent_are_refused(make, tmp_path):
    make("a")
    message = f"{make.folder}: no run {'e' * 16}; train it again"
    with pytest.raises(ResultsError, match=f"^{re.escape(message)}$"):
        write_report(make.folder, tmp_path / "out", only={"e" * 64})


@pytest.mark.usefixtures("blank_figures")
def test_a_second_report_removes_the_figures_of_the_first_and_nothing_else(make, tmp_path):
    make("former")
    second = make("second")
    out = tmp_path / "out"
    write_report(make.folder, out)
    (out / "notes.txt").write_text("mine")
    (out / "figures" / "mine.svg").write_text("mine")
    write_report(make.folder, out, only={second.digest})
    names = set(contents(out))
    assert {"notes.txt", "figures/mine.svg", "figures/confusion_second.svg"} <= names
    assert not {"figures/confusion_former.svg", "figures/classes_former.png", "figures/f1_change.svg"} & names
    assert ">former<" not in (out / "index.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("blank_figures")
def test_a_report_that_fails_leaves_the_former_one_as_it_was(make, tmp_path, monkeypatch):
    make("a")
    out = tmp_path / "out"
    write_report(make.folder, out)
    before = contents(out)

    def fail(*args, **kwargs):
        raise RuntimeError("no page")

    monkeypatch.setattr("emofuse.report.render_page", fail)
    with pytest.raises(RuntimeError, match="no page"):
        write_report(make.folder, out, title="another")
    assert contents(out) == before


def test_folders_without_runs_are_refused(tmp_path):
    (tmp_path / "runs").mkdir()
    message = f"{tmp_path / 'runs'}: no runs in this folder; train first: emofuse run NAME"
    with pytest.raises(ResultsError, match=f"^{re.escape(message)}$"):
        write_report(tmp_path / "runs", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_report_is_refused(make, tmp_path):
    make("a")
    (tmp_path / "out").write_text("a file")
    message = f"{tmp_path / 'out'}: a file is in the place of the report's folder; name another folder"
    with pytest.raises(ResultsError, match=f"^{re.escape(message)}$"):
        write_report(make.folder, tmp_path / "out")


@pytest.mark.usefixtures("blank_figures")
def test_tables_of_many_labels_are_folded_and_have_the_keys_of_their_figures(make_run, tmp_path):
    make_run("a", classes=tuple(f"label number {index}" for index in range(45)), rows=1350)
    page = write_report(make_run.folder, tmp_path / "report").page.read_text(encoding="utf-8")
    assert "<details><summary>F1 of each class, all configurations</summary>" in page
    assert "<details><summary>Labelled rows of each label</summary>" in page
    assert page.count(">No.</th>") == 3
    assert page.count(">Rank by F1</th>") == 1
    assert "45: label number 0, label number 1, label number 2, label number 3, label number 4 and 40 more" in page
    make_run("b", classes=CLASSES)
    few = write_report(make_run.folder, tmp_path / "few", only=[make_run("c").digest]).page.read_text(encoding="utf-8")
    assert ">No.</th>" not in few
    assert "Labelled rows of each label" not in few
