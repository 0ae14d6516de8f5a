"""Who corrects and who acts are named as they are, whatever teaches; baselines that do not exist are not mentioned."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from tiny_run import SCRIPTED, WORLD, make_recipe, make_run

from leap import registry
from leap.core import Decision
from leap.recipe import Recipe
from leap.report import charts
from leap.report.collect import collect
from leap.report.model import Report
from leap.report.page import render, write_report
from leap.runs.policies import folder_name
from leap.teachers.function import Ask
from leap.testing.corridor import EAST

MODEL = {"kind": "model", "model": "mock/big", "privilege": 50}
BASE_MODEL = {"demonstrations": {"from": "none"}, "student": {"model": "hf/some/model"}}
SCRIPT = "the scripted teacher"
OWN = {"mock-big-0": 3, "mock-big-50": 7}


@pytest.fixture
def my_rule(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    def rule(ask: Ask) -> Decision:
        return Decision(reason="so", action=EAST)

    monkeypatch.setitem(registry.teacher._decorated, "my-rule", rule)
    yield "my-rule"


def reported(folder: Path, evaluated: dict[str, int], **more: Any) -> tuple[Report, str]:
    recipe = make_recipe(**more)
    run = make_run(folder, baselines=evaluated, recipe=recipe)
    report, _ = collect(recipe, run, per_group=2)
    return report, text_of(write_report(recipe, run, WORLD).read_text(encoding="utf-8"))


def text_of(page: str) -> str:
    """The page's words, without the embedded data."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.split("<body>")[1].split("<script")[0]))


def correctors(report: Report) -> list[str]:
    return [policy.label for policy in report.policies if policy.label.endswith("who corrects")]


def test_a_model_corrects_and_is_evaluated(tmp_path: Path) -> None:
    report, text = reported(tmp_path, {**SCRIPTED, **OWN}, teacher=MODEL, baselines={"teacher_model": True})
    assert correctors(report) == ["mock/big at privilege 50 (p50), who corrects"]
    roles = {policy.name: policy.role for policy in report.policies}
    assert roles["teacher-50"] == roles["teacher-0"] == "other" and roles["mock-big-50"] == "teacher"
    (line,) = (line for line in report.headline if "teacher" in line)
    assert "mock/big" in line and "above by 62 points" in line, "8 of 8 against the model's 3, not the script's 5"
    assert "corrected by model mock/big at privilege 50" in text
    assert "script p50" in text and "teacher p50 88" in text and "teacher p50 100" not in text


def test_a_model_corrects_and_is_not_evaluated(tmp_path: Path) -> None:
    report, text = reported(tmp_path, SCRIPTED, teacher=MODEL)
    assert correctors(report) == [] and "who corrects" not in text
    assert not [line for line in report.headline if "teacher" in line]
    assert "The teacher (model mock/big, privilege 50) corrects" in text
    assert "teacher p50" not in text and "scripted teacher at privilege 50" in text


def test_a_prompted_model_is_named_and_no_label_of_a_chart_is_cut_off(tmp_path: Path) -> None:
    long = "mock/" + "a-model-with-a-long-name-" * 2
    more = {"teacher": MODEL, "baselines": {"teacher_model": True, "react": [{"model": long}]}}
    report, text = reported(tmp_path, {**SCRIPTED, **OWN, folder_name(f"react-{long}"): 4}, **more)
    assert f"ReAct {long}" in text and "react-mock" not in text
    assert [policy.role for policy in report.policies[3:]] == ["expert", "teacher", "teacher", "other", "other", "other"]
    chart = ElementTree.fromstring(charts.learning_curve(report, "seen", charts.SUCCESS, width=520))
    labels = [one for one in chart.iter("text") if "label" in one.get("class", "")]
    assert len(labels) == 6 and sum("ReAct a" in (one.text or "") or "ReAct m" in (one.text or "") for one in labels) == 1
    assert max(float(one.get("x", "")) + charts.LETTER * len(one.text or "") for one in labels) <= 520


def test_baselines_that_do_not_exist_are_not_mentioned(tmp_path: Path) -> None:
    report, text = reported(tmp_path, {}, teacher=MODEL, **BASE_MODEL)
    assert [policy.name for policy in report.policies] == ["pi_0", "pi_1", "pi_2"]
    told = text.replace("/script", "")  # of the hostile texts
    assert not re.findall(r".{40}\b(?:script|expert|p50|p0\b).{40}", told), "none of these plays in this run"


@pytest.mark.parametrize(("kind", "who"), [("self", "the student itself"), ("my-rule", "my-rule")])
def test_the_student_itself_or_a_function_corrects(kind: str, who: str, tmp_path: Path, my_rule: str) -> None:
    report, text = reported(tmp_path, SCRIPTED, teacher={"kind": kind})
    assert correctors(report) == [] and {policy.role for policy in report.policies} == {"student", "expert", "other"}
    assert f"corrected by {who} at privilege 50" in text and "scripted teacher at privilege 50" in text
    assert not [line for line in report.headline if "teacher" in line]


def test_a_scripted_teacher_corrects(tmp_path: Path) -> None:
    report, text = reported(tmp_path, SCRIPTED)
    assert correctors(report) == ["teacher at privilege 50 (p50), who corrects"]
    assert "script p" not in text and "teacher p50 100" in text
    (line,) = (line for line in report.headline if "teacher" in line)
    assert line.startswith("Against its teacher without privilege: above") and "above by 38 points" in line


@pytest.mark.parametrize(
    ("beta", "first", "second"),
    [
        ({"beta": 0.0}, "π₀", "π₁"),
        ({"beta": 1.0, "decay": 0.5}, SCRIPT, f"π₁, {SCRIPT} in its place with probability 0.5"),
        ({"beta": 1.0}, SCRIPT, SCRIPT),
    ],
)
def test_who_acts_in_mixed_rollouts(beta: dict[str, float], first: str, second: str, tmp_path: Path) -> None:
    report, text = reported(tmp_path, SCRIPTED, rollouts=beta)
    assert f" 1 {first} 25 % " in text and f" 2 {second} 62 % " in text
    titles = [one.title for one in report.shown if one.role == "rollouts"]
    assert titles == [f"rollouts of {who}" for who in (first, second)]


def test_several_environments_are_named(tmp_path: Path) -> None:
    made, _ = reported(tmp_path, SCRIPTED)
    values = make_recipe().model_dump(mode="json")
    parts = {"short": {"environment": "corridor"}, "long": {"environment": "corridor", "options": {"goal": 5}}}
    mixture = values["environment"] | {"name": "mixture", "options": {"parts": parts}}
    recipe = Recipe.model_validate(values | {"environment": mixture})
    report, _ = collect(recipe, make_run(tmp_path / "mixed", recipe=recipe), per_group=2)
    assert report.setup.environment == "mixture of short and long" and made.setup.environment == "corridor"
    assert "mixture of short and long: trained on" in text_of(render(report, {}))
