"""The page: what it shows, that it loads nothing, and what it says of what is missing."""

import base64
import io
import json
from html.parser import HTMLParser

import pytest
from PIL import Image

from eql_d2.data import load_detection_data
from eql_d2.errors import DataError, UserError
from eql_d2.reporting import read_sides, write_report
from eql_d2.reporting.categories import category_charts
from eql_d2.reporting.comparing import compare_sides
from eql_d2.reporting.curves import loss_curves
from eql_d2.reporting.examples import box_iou, choose_categories, make_examples
from eql_d2.reporting.runs import read_categories

VOID = {"meta", "img", "input", "br"}


class Page(HTMLParser):
    """Texts by element; complains about elements that are not closed in order."""

    def __init__(self, content):
        super().__init__()
        self.open, self.texts, self.links, self.ids = [], [], [], []
        self.feed(content)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.links += [v for k, v in attributes if k in ("src", "href", "xlink:href")]
        self.ids += [v for k, v in attributes if k == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag):
        return [text for element, text in self.texts if element == tag]


@pytest.fixture
def sides(make_run):
    runs = [make_run("sigmoid_seed0", 1, 0.6), make_run("sigmoid_seed1", 2, 0.6)]
    return read_sides([*runs, make_run("eql_seed0", 3, 0.95), make_run("eql_seed1", 4, 0.95)])


@pytest.fixture
def data(dataset):
    return load_detection_data(dataset[0], dataset[2])


@pytest.fixture
def page(sides, data, dataset, tmp_path):
    comparisons = compare_sides(sides, dataset[0], 100)
    missing = write_report(
        tmp_path / "r.html", sides, title="A < B", data=data, comparisons=comparisons,
        training_images={k: 2 * k for k in range(1, 7)},
    )  # fmt: skip
    assert missing == []
    return (tmp_path / "r.html").read_text("utf-8")


def test_sections_titles_and_navigation(page):
    parsed = Page(page)
    assert parsed.of("h1") == ["A < B"]
    assert parsed.of("h2") == [
        "Metrics", "Differences and noise", "Categories", "Best and worst rare categories",
        "Training",
    ]  # fmt: skip
    anchors = [link[1:] for link in parsed.links if link.startswith("#")]
    assert anchors == ["metrics", "noise", "categories", "rare", "training"]
    assert set(anchors) <= set(parsed.ids)


def test_nothing_is_loaded_and_nothing_is_run_from_names(page):
    parsed = Page(page)
    assert all(link.startswith(("#", "data:image/")) for link in parsed.links)
    assert "default-src 'none'" in page.replace("&#x27;", "'")
    assert "url(" not in page
    assert "@import" not in page
    assert "<b>fork</b>" not in page
    assert "&lt;b&gt;fork&lt;/b&gt;" in page


def test_numbers_are_those_of_the_metrics_files(page, sides):
    values = [run.row.metrics["segm/AP"] for run in sides[0].runs]
    assert f"{sum(values) / 2:.1f}" in Page(page).of("span")
    for side in sides:
        for run in side.runs:
            assert f"{run.row.metrics['bbox/APr']:.2f}" in Page(page).of("td")


def test_the_gain_is_told_in_words(page):
    verdicts = [text for text in Page(page).of("span") if "noise" in text]
    assert len(verdicts) == 4  # AP and APr, boxes and masks
    assert any(text.startswith("exceeds the noise") for text in verdicts)


def test_pictures_are_images(page):
    pictures = [link for link in Page(page).links if link.startswith("data:image/jpeg;base64,")]
    assert len(pictures) == 3 * 3  # three rare categories; ground truth and two configurations
    for picture in pictures:
        image = Image.open(io.BytesIO(base64.b64decode(picture.split(",")[1])))
        assert 100 <= max(image.size) <= 480


def test_the_same_runs_give_the_same_page(sides, tmp_path):
    for name in ("a.html", "b.html"):
        write_report(tmp_path / name, sides)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_what_is_not_there_is_said(make_run, tmp_path):
    run = make_run("bare", log=False, results=False)
    (run / "per_category.csv").unlink(missing_ok=True)
    missing = write_report(tmp_path / "r.html", read_sides([run]))
    text = (tmp_path / "r.html").read_text()
    assert len(missing) == 3
    for line, what in zip(missing, ("categories", "examples", "training curves"), strict=True):
        assert line.startswith(what)
        assert line in text
    assert Page(text).of("h2") == ["Metrics"]


def test_seeds_come_together_in_the_order_given(sides):
    assert [side.name for side in sides] == ["sigmoid", "eql"]
    assert [run.row.seed for run in sides[0].runs] == [0, 1]
    ap = [run.categories[4].ap["bbox"] for run in sides[0].runs]
    assert sides[0].category_ap("bbox")[4] == pytest.approx(sum(ap) / 2)


def test_wrong_folders_are_named(make_run, tmp_path):
    with pytest.raises(UserError, match="at least one"):
        read_sides([])
    with pytest.raises(UserError, match="no such folder"):
        read_sides([tmp_path / "nothing"])
    with pytest.raises(UserError, match=r"holds no metrics\.json"):
        read_sides([tmp_path])
    run = make_run("twice")
    with pytest.raises(UserError, match="named twice"):
        read_sides([run, run])


def test_a_damaged_table_is_named(tmp_path):
    (tmp_path / "per_category.csv").write_text("category_id,name\n1,x\n")
    with pytest.raises(DataError, match=r"per_category\.csv is no table"):
        read_categories(tmp_path / "per_category.csv")


def test_best_and_worst_are_rare_and_not_the_same(sides):
    best, worst = choose_categories(sides, 2)
    assert set(best + worst) == {1, 2, 3}
    assert worst == [1]  # the cup, which nobody finds
    best, worst = choose_categories(sides)
    assert (len(best), worst) == (3, [])


def test_examples_tell_what_was_made_of_an_object(sides, data):
    (cup,) = make_examples(sides, data, [1], found=False)
    assert cup.name == "cup"
    assert cup.ap == 0
    assert [panel.title for panel in cup.panels] == ["ground truth", "sigmoid", "eql"]
    assert cup.panels[2].words.startswith("taken for bowl, score 0.")
    (plate,) = make_examples(sides, data, [2], found=True)
    assert all(panel.words.startswith("found, score 0.") for panel in plate.panels[1:])


def test_an_example_says_what_stands_ahead(make_run, data):
    run = make_run("ahead", 5, 1.0)
    file = run / "inference/lvis_instances_results.json"
    records = json.loads(file.read_text())
    plates = [r for r in records if r["category_id"] == 2]
    for record in plates:
        record["score"] = 0.3
    records += [dict(r, category_id=6, score=0.9) for r in plates]
    records += [dict(r, category_id=777) for r in plates]  # unknown ones are passed over
    file.write_text(json.dumps(records))
    (plate,) = make_examples(read_sides([run]), data, [2], found=True)
    assert plate.panels[1].words == "found, score 0.30; ahead of it lamp, score 0.90"


def test_overlap_of_boxes():
    assert box_iou([0, 0, 10, 10], [0, 0, 10, 10]) == 1
    assert box_iou([0, 0, 10, 10], [5, 0, 10, 10]) == pytest.approx(1 / 3)
    assert box_iou([0, 0, 10, 10], [20, 0, 10, 10]) == 0
    assert box_iou([0, 0, 0, 0], [0, 0, 0, 0]) == 0


def test_every_category_is_a_mark_with_its_name(sides):
    chart = category_charts(sides, None)
    assert chart.count(" dot") == 3 * 6  # two configurations and their difference
    assert "spoon: " in chart
    assert "test images with the category" in chart
    assert "training images with" in category_charts(sides, {k: k for k in range(1, 7)})


def test_curves_show_the_first_seed_and_only_what_is_logged(sides, make_run):
    curves = loss_curves(sides)
    assert curves is not None
    assert "eql_seed0" in curves
    assert "eql_seed1" not in curves
    assert curves.count("<svg") == 2 + 2  # two quantities, and two keys of the legend
    longest = max(curves.split('d="'), key=len)
    assert longest.count("L") <= 300
    assert loss_curves(read_sides([make_run("bare", log=False, results=False)])) is None


def test_sides_without_results_are_not_compared(make_run, dataset):
    bare, full = make_run("bare", log=False, results=False), make_run("eql_seed0", 3, 0.95)
    assert compare_sides(read_sides([bare, full]), dataset[0], 100) == []
    assert compare_sides(read_sides([full, bare]), dataset[0], 100) == []
