"""The page: safe whatever models wrote, self-contained, the same every time."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from jinja2 import Environment
from tiny_run import HOSTILE, WORLD, make_recipe, make_run
from typer.testing import CliRunner

from leap import registry
from leap.cli.app import app
from leap.errors import LeapError, RunError
from leap.files import read_json, write_json
from leap.models.base import Completion, Request
from leap.models.ledger import Ledger
from leap.recipe import Recipe
from leap.report import charts
from leap.report.calls import calls_shown
from leap.report.collect import collect
from leap.report.model import Report
from leap.report.page import embedded, render, write_report
from leap.report.sections import Section
from leap.report.svg import LINE, apart
from leap.runs.directory import RunDirectory
from leap_lab.measures import charts as gap_charts

NARROW = "\u202f"


class Tags(HTMLParser):
    """Collects elements, attributes, and what is inside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.seen and self.seen[-1][0] in ("script", "style"):
            self.inside.append((self.seen[-1][1].get("type") or self.seen[-1][0], data))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = make_run(tmp_path_factory.mktemp("runs") / "tiny")
    return write_report(make_recipe(), run, WORLD).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tags(page: str) -> Tags:
    parser = Tags()
    parser.feed(page)
    return parser


def test_hostile_text_becomes_no_element(page: str, tags: Tags) -> None:
    assert HOSTILE not in page and "<img" not in page and 'onerror="' not in page
    assert not [tag for tag, _ in tags.seen if tag in ("img", "iframe", "object", "form")]
    assert not [name for _, attrs in tags.seen for name in attrs if name.startswith("on") or name == "style"]
    data = json.loads(next(text for kind, text in tags.inside if kind == "application/json"))
    assert any(HOSTILE in text for text in data["texts"]), "it is shown, only not obeyed"


def test_embedded_json_cannot_end_its_element() -> None:
    text = embedded({"a": HOSTILE + "]]>\u2029"})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": HOSTILE + "]]>\u2029"}


def test_nothing_is_loaded_and_only_our_script_runs(page: str, tags: Tags) -> None:
    policy = next(a["content"] for t, a in tags.seen if t == "meta" and a.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none';") and "unsafe" not in policy
    for kind, directive in (("script", "script-src"), ("style", "style-src")):
        (source,) = (text for found, text in tags.inside if found == kind and text.strip())
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    links = [value for _, attrs in tags.seen for name, value in attrs.items() if name in ("src", "href")]
    assert links and all(value and value.startswith(("#", "data:")) for value in links)
    script = next(text for found, text in tags.inside if found == "script")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|fetch\(|https?:", script)


def test_same_files_same_bytes(tmp_path: Path, page: str) -> None:
    run = make_run(tmp_path)
    again = write_report(make_recipe(), run, WORLD)
    assert again.read_text(encoding="utf-8") == page
    twin = (run.report / "report.json").read_bytes()
    write_report(make_recipe(), run, WORLD)
    assert (run.report / "report.json").read_bytes() == twin


def test_every_section_names_its_conditions(page: str) -> None:
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page.split("<body>")[1].split("<script")[0]))
    assert "seed 5; horizon 6; free decoding at temperature 0.3" in text
    assert "validation · n = 8 · seed 5 · horizon 6" in text
    assert "8 of 8 rollouts of π₀" in text
    assert "action not admissible there" in text
    assert "1 min 01" in text and "12.3" in text


def test_realizability_and_cost_are_on_the_page(page: str) -> None:
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page.split("<body>")[1].split("<script")[0]))
    assert "To π₂, a held-out correction costs 2.60 nats (3.30 to π₁, before the last training)" in text
    assert "π₀: 8, π₁: 8, π₂: 8" in text, "how many episodes stand behind it"
    assert "4 paid calls, 2 400 tokens read" in text.replace(NARROW, " ") and "$1.25" in text
    assert "2 more failed after all retries" in text
    assert "2 h 01 min of boxes, $0.25" in text.replace(NARROW, " ")
    for anchor in ("realizability", "cost"):
        assert f'href="#{anchor}"' in page and f'id="{anchor}"' in page


def test_calls_stand_behind_a_fold_escaped_and_within_bounds(tmp_path: Path, page: str) -> None:
    section = page[page.index('id="calls"') : page.index('<section id="time"')]
    assert section.count("[user]\nasked ") == 2 and section.count("<pre>said ") == 2 and HOSTILE not in section
    assert "failed" in section and "no answer" in section and "(The prompt is not on file.)" in section
    ledger = Ledger(tmp_path / "calls.sqlite")
    with ledger.stage("correct 1"):
        for number in range(200):
            asked = Request([{"role": "user", "content": f"{number} " + "x" * 30_000}])
            ledger.book(str(number), f"m/{number % 40}", Completion("y" * 30_000, 1, 1), 1.0, request=asked)
    ledger.close()
    shown = calls_shown(tmp_path / "calls.sqlite")
    assert 900_000 < sum(len(one.asked) + len(one.answered) for one in shown) <= 1_000_000
    assert [one.call.number for one in shown] == sorted({one.call.number for one in shown})
    assert all("more are on file" in one.asked for one in shown)


def test_without_measures_or_ledger_there_is_no_such_section(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.root.joinpath("calls.sqlite").unlink()
    for path in tmp_path.glob("iter-*/measures.json"):
        path.unlink()
    page = write_report(make_recipe(), run).read_text(encoding="utf-8")
    assert "#realizability" not in page and "#cost" not in page


@pytest.mark.parametrize("finished", [0, 1, 2])
def test_charts_are_well_formed_and_inside_their_box(tmp_path: Path, finished: int) -> None:
    report, _ = collect(make_recipe(), make_run(tmp_path, finished=finished), per_group=1)
    for measure in (charts.SUCCESS, charts.actions(6)):
        root = ElementTree.fromstring(charts.learning_curve(report, "seen", measure, width=600))
        assert len(root.findall(".//circle[@class='dot student']")) == finished + 1
        assert len(root.findall("./line[@class]/title")) == 3
        heights = [float(e.get(a, "0")) for e in root.iter() for a in ("y", "y1", "y2", "cy")]
        assert min(heights) >= 0 and max(heights) <= charts.HEIGHT


@pytest.mark.parametrize("last", [1, 200, 100_000])
def test_the_labels_of_a_loss_are_inside_its_box(last: int) -> None:
    root = ElementTree.fromstring(charts.losses([(1, 2.0), (last, 0.1)] if last > 1 else [(1, 2.0)], "pi"))
    width = float(root.get("viewBox", "").split()[2])
    for label in root.iter("text"):
        if "middle" in label.get("class", ""):  # 12 pixels high, a figure about 7 wide
            reach = 3.5 * len(label.text or "")
            assert reach <= float(label.get("x", "0")) <= width - reach


@pytest.mark.parametrize("finished", [0, 1, 2])
def test_charts_of_the_gap_are_well_formed_and_inside_their_box(tmp_path: Path, finished: int) -> None:
    report, _ = collect(make_recipe(), make_run(tmp_path, finished=finished), per_group=1)
    measures = report.sections["realizability"]
    roots = [ElementTree.fromstring(draw(measures, width=520)) for draw in (gap_charts.gap, gap_charts.agreement)]
    assert len(roots[0].findall(".//circle[@class='hollow']")) == finished
    assert len(roots[1].findall(".//polyline")) == finished + 1
    for root in roots:
        places = [float(e.get(a, "0")) for e in root.iter() for a in ("y", "y1", "y2", "cy")]
        for shape in root.iter():
            places += [float(pair.split(",")[1]) for pair in shape.get("points", "").split()]
        assert min(places) >= 0 and max(places) <= charts.HEIGHT
    planned = report.sections["realizability"][-1].held_out
    assert planned is not None and planned.recoverability is not None
    bar = ElementTree.fromstring(gap_charts.costs(planned.recoverability))
    assert sum(float(part.get("width", "0")) for part in bar) == pytest.approx(100, abs=0.1)


@pytest.mark.parametrize("value", [1e-9, 0.011, 0.99, 1.0, 1.01, 7, 9.9, 11, 68.2, 999])
def test_axes_end_above_their_values(value: float) -> None:
    top = gap_charts._round_top(value)
    assert value <= top <= 2 * value


def test_labels_keep_apart() -> None:
    for heights in ([20.0, 20.0, 21.0, 200.0], [204.0, 204.0, 204.0], [14.0] * 5, []):
        placed = sorted(apart(heights, charts.TOP, charts.HEIGHT - charts.BOTTOM))
        assert all(b - a >= LINE - 1e-6 for a, b in itertools.pairwise(placed))
        assert all(0 <= place <= charts.HEIGHT - charts.BOTTOM for place in placed)


def test_scores_that_have_parts_get_a_table_and_others_none(page: str, tmp_path: Path) -> None:
    assert 'id="scores"' not in page
    report, _ = collect(make_recipe(), make_run(tmp_path / "parts"), per_group=3)
    values = report.model_dump(mode="json")
    for policy in values["policies"]:
        for evaluation in policy["evaluations"].values():
            evaluation["overall"] |= {"score": 0.625, "score_ci": 0.125, "parts": {"title_score": 0.5, HOSTILE: 0.25}}
            evaluation["versions"] = {"leap": "0", "reward": f"not official {HOSTILE}"}
    shown = render(type(report).model_validate(values), {})
    section = shown[shown.index('id="scores"') :]
    section = section[: section.index("</section>")]
    assert "<b>62.5</b><small>± 12.5" in section and "title score" in section and "25.0" in section
    assert "reward: not official &lt;/script&gt;" in section and HOSTILE not in section
    assert '<a href="#scores">' in shown


def test_another_package_adds_a_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Notes(Section):
        title = "Notes"

        def read(self, recipe: Recipe, run: RunDirectory, notes: list[str]) -> list[str]:
            return [f"<b>{recipe.name}</b>"]

        def render(self, data: list[str], report: Report, jinja: Environment) -> str:
            return jinja.from_string('<section id="notes">{{ data[0] }}</section>').render(data=data)

    class Broken(Notes):
        def read(self, recipe: Recipe, run: RunDirectory, notes: list[str]) -> list[str]:
            raise RunError("no such table")

    for name, section in (("notes", Notes), ("broken", Broken)):
        monkeypatch.setitem(registry.report_section._decorated, name, section)
    recipe, run = make_recipe(), make_run(tmp_path)
    page = write_report(recipe, run).read_text(encoding="utf-8")
    twin = json.loads((run.report / "report.json").read_text(encoding="utf-8"))
    assert f'<section id="notes">&lt;b&gt;{recipe.name}&lt;/b&gt;</section>' in page and 'href="#notes"' in page
    assert twin["sections"]["notes"] == [f"<b>{recipe.name}</b>"] and "broken" not in twin["sections"]
    assert any("'broken' is left out: no such table" in note for note in twin["notes"])


def test_episodes_that_were_broken_off_stand_beside_n(tmp_path: Path) -> None:
    run = make_run(tmp_path / "tiny", tasks=4)
    for name in ("pi_2", "teacher-50"):
        told = read_json(run.evaluation(name))
        for one in told:
            one["overall"]["stops"] = {"success": 1, "model_error": 2, "environment_error": 1}
        write_json(run.evaluation(name), told)
    page = write_report(make_recipe(), run, WORLD).read_text(encoding="utf-8")
    assert page.count("3 broken off") >= 2 and page.count("broken off") == page.count("3 broken off")


def test_rollouts_that_were_broken_off_stand_beside_n(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    lines = run.episodes(2).read_text(encoding="utf-8").split("\n")  # a line separator of Unicode ends no record
    lost = [line.replace('"stop":"horizon"', '"stop":"model_error"') for line in lines]
    assert sum(map(str.__ne__, lines, lost)) == 3, "pi_1 solved five of eight"
    run.episodes(2).write_text("\n".join(lost), encoding="utf-8")
    page = write_report(make_recipe(), run, WORLD).read_text(encoding="utf-8")
    assert page.count("n = 8, 3 broken off") == 1


def test_a_run_that_is_under_way_or_read_only_is_reported_elsewhere_and_left_as_it_is(tmp_path: Path) -> None:
    run, out = make_run(tmp_path / "tiny"), tmp_path / "page"
    with (run.corrections(2)).open("a", encoding="utf-8") as file:
        file.write('{"episode": "torn')
    run.report.write_text("no folder: stands for one that cannot be written", encoding="utf-8")
    with run.locked():
        before = {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in run.root.rglob("*")}
        shown = CliRunner().invoke(app, ["report", str(run.root)])
        assert isinstance(shown.exception, LeapError) and "--out" in str(shown.exception)
        page = write_report(make_recipe(), run, WORLD, out=out)
        after = {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in run.root.rglob("*")}
    assert after == before and page == out / "index.html" and "π₂ solves" in page.read_text(encoding="utf-8")
