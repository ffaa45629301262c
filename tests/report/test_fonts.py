"""Names in any script: drawn where a font has their letters, by number with a legend where none has."""

from __future__ import annotations

import warnings

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from emofuse.report import fonts, write_report
from emofuse.report.comparisons import measure_uncertainty
from emofuse.report.figures import draw_figures
from emofuse.report.fonts import choose_lettering, letters_of, with_drawn_names
from emofuse.report.grouping import group_runs

CHINESE = ("高兴", "悲伤", "calm")


@pytest.fixture
def results(make_run):
    return group_runs([make_run("a", classes=CHINESE, rows=90, epochs=3)], "runs")


@pytest.fixture
def no_other_fonts(monkeypatch):
    monkeypatch.setattr(fonts.font_manager, "findSystemFonts", list)


def make_font(path, letters: str) -> None:
    """A font whose letters are squares."""
    names = [f"letter{index}" for index in range(len(letters))]
    pen = TTGlyphPen(None)
    pen.moveTo((50, 0))
    for place in ((50, 700), (750, 700), (750, 0)):
        pen.lineTo(place)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names])
    builder.setupCharacterMap({ord(letter): name for letter, name in zip(letters, names, strict=True)})
    builder.setupGlyf(dict.fromkeys((".notdef", *names), square))
    builder.setupHorizontalMetrics(dict.fromkeys((".notdef", *names), (800, 50)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Squares of a test", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800)
    builder.setupPost()
    builder.save(path)


def test_letters_are_drawn_by_a_font_of_the_system_that_holds_them(results, unmeasured, monkeypatch, tmp_path):
    make_font(tmp_path / "NameSaysNothing.ttf", "高兴悲伤")
    (tmp_path / "cjk-by-name-alone.ttf").write_bytes(b"no font at all")
    paths = [str(path) for path in tmp_path.iterdir()]
    monkeypatch.setattr(fonts.font_manager, "findSystemFonts", lambda: paths)
    lettering = choose_lettering(results)
    assert lettering.families == ("DejaVu Sans", "Squares of a test")
    assert not lettering.labels
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_figures(results, unmeasured, lettering)


def test_names_that_no_font_can_draw_are_shown_by_number_with_a_legend(results, no_other_fonts):
    lettering = choose_lettering(results)
    assert lettering.labels == {"高兴": "label 1", "悲伤": "label 2"}
    assert "label 1 is 高兴, label 2 is 悲伤." in lettering.notice()
    assert "label 1 is 高兴 and 1 more." in lettering.notice(most=1)


def test_figures_without_a_font_warn_of_nothing_and_the_page_names_the_numbers(make_run, no_other_fonts, tmp_path):
    make_run("快乐", classes=CHINESE, rows=90, epochs=3)
    said: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = write_report(make_run.folder, tmp_path / "report", say=said.append)
    page = files.page.read_text(encoding="utf-8")
    assert "label 1 is 高兴" in page
    assert "configuration 1 is 快乐" in page
    assert len(said) == 1
    assert said[0].startswith("No font of this machine has all letters of some names, so figures show them by number")


def test_tests_and_intervals_follow_a_configuration_that_is_shown_by_number(make_run, no_other_fonts):
    results = group_runs([make_run(name, classes=CHINESE, rows=90, epochs=3) for name in ("基线", "b")], "runs")
    measured = measure_uncertainty(results, make_run.folder)
    shown, of_shown = with_drawn_names(results, measured, choose_lettering(results))
    assert shown.baseline.label == "configuration 1"
    assert shown.baseline in shown.configurations
    assert of_shown.intervals["configuration 1"] == measured.intervals["基线"]


@pytest.mark.parametrize("name", ["joy", "Freude größer", "радость", "فرح"])
def test_letters_of_the_font_that_travels_with_matplotlib_need_no_other(make_run, monkeypatch, name):
    def never() -> list[str]:
        raise AssertionError("the system's fonts were searched")

    monkeypatch.setattr(fonts.font_manager, "findSystemFonts", never)
    results = group_runs([make_run("a", classes=(name, "fear"), rows=60, epochs=3)], "runs")
    assert choose_lettering(results).families == ("DejaVu Sans",)


def test_fonts_of_pictures_and_placeholders_draw_no_letters(results, monkeypatch, tmp_path):
    for name in ("NotoColorEmoji.ttf", "LastResort.ttf"):
        make_font(tmp_path / name, "高兴悲伤")
    paths = [str(path) for path in tmp_path.iterdir()]
    monkeypatch.setattr(fonts.font_manager, "findSystemFonts", lambda: paths)
    assert set(choose_lettering(results).labels) == {"高兴", "悲伤"}


def test_a_file_that_is_no_font_holds_no_letters(tmp_path):
    (tmp_path / "x.ttf").write_bytes(b"nothing")
    assert letters_of(str(tmp_path / "x.ttf")) == frozenset()


def test_a_label_and_a_configuration_of_one_name_have_numbers_of_their_own(make_run, unmeasured, no_other_fonts):
    results = group_runs([make_run(name, classes=CHINESE[::-1], rows=90, epochs=3) for name in ("a", "高兴")], "runs")
    lettering = choose_lettering(results)
    assert lettering.labels["高兴"] == "label 3"
    assert lettering.configurations == {"高兴": "configuration 2"}
    shown, _ = with_drawn_names(results, unmeasured, lettering)
    assert shown.classes == ("calm", "label 2", "label 3")
    assert [item.label for item in shown.configurations] == ["a", "configuration 2"]


def test_a_number_is_never_the_name_of_another_label(make_run, no_other_fonts):
    results = group_runs([make_run("a", classes=("高兴", "Label  1", "悲伤"), rows=90, epochs=3)], "runs")
    assert choose_lettering(results).labels == {"高兴": "label #1", "悲伤": "label #3"}
    results = group_runs([make_run("b", classes=("高兴", "label 1", "label #1"), rows=90, epochs=3)], "runs")
    assert choose_lettering(results).labels == {"高兴": "label ##1"}


def test_control_characters_are_escaped_and_need_no_font(make_run, unmeasured, tmp_path, monkeypatch):
    monkeypatch.setattr(fonts.font_manager, "findSystemFonts", list)
    classes = ("joy\x07", "joy\\x07", "\u202eraef")
    make_run("run\x1b", classes=classes, rows=90, epochs=3)
    results = group_runs([make_run("run\x00", classes=classes, rows=90, epochs=3)], "runs")
    assert choose_lettering(results).notice() == ""
    shown, _ = with_drawn_names(results, unmeasured, choose_lettering(results))
    assert shown.classes == ("joy\\x07′", "joy\\x07", "\\u202eraef")
    assert shown.baseline.label == "run\\x00"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = write_report(make_run.folder, tmp_path / "report")
    for path in (files.page, files.per_part_markdown):
        text = path.read_text(encoding="utf-8")
        assert not {"\x00", "\x07", "\x1b", "\u202e"} & set(text)
        assert "raef" in text
    assert "joy\\x07" in files.page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("高兴", "Noto Sans CJK"),
        ("기쁨", "Noto Sans CJK"),
        ("खुशी", "Noto Sans Devanagari"),
        ("ความสุข", "Noto Sans Thai"),
        ("ደስታ", "Noto Sans Ethiopic"),
        ("ᱨᱟᱹᱥᱠᱟᱹ", "Noto Sans Ol Chiki"),
        ("🥰", "Noto Emoji"),
    ],
)
def test_the_advice_names_a_font_of_the_script(make_run, no_other_fonts, name, family):
    results = group_runs([make_run("a", classes=(name, "fear"), rows=60, epochs=3)], "runs")
    lettering = choose_lettering(results)
    assert lettering.fitting == (family,)
    assert f"Install a font that has these letters, such as {family}, and write" in lettering.notice()


@pytest.mark.usefixtures("svg_alone")
def test_tables_have_the_numbers_that_figures_show(make_run, no_other_fonts, tmp_path):
    make_run("a", classes=CHINESE, rows=90, epochs=3)
    files = write_report(make_run.folder, tmp_path / "report")
    page = files.page.read_text(encoding="utf-8")
    assert page.count(">No.</th>") == 2  # labelled rows, and the numbers of each class
    assert ">2: 悲伤</th>" in page
    assert "| No. |" in files.per_part_markdown.read_text(encoding="utf-8")
