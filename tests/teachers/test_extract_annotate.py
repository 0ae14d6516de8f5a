"""What models read from and write into demonstrations: privileged states and reasons, kept on file, nothing invented."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path

import pytest

from leap.core import Episode
from leap.errors import ModelError
from leap.files import Journal
from leap.models.base import Completion
from leap.teachers.onfile import Annotation, ExtractedState, ReasonAnnotator, StateExtractor
from leap.testing.models import Scripted
from leap.testing.play import expert_episodes
from tiny_world import TinyWorld, TinyWorldConfig

WORLD = TinyWorld(TinyWorldConfig(tasks=12))
EPISODES = [episode for episode in expert_episodes(WORLD) if episode.success]
EPISODE = max(EPISODES, key=lambda episode: len(episode.steps))
STATE = "Task: open the door\nEssential objects: key\nCritical locations: door\nOptimal actions: take key; open door"
BARE = EPISODE.model_copy(update={"steps": tuple(s.model_copy(update={"reason": ""}) for s in EPISODE.steps)})


def test_a_state_is_read_once_and_kept(tmp_path: Path) -> None:
    model = Scripted(lambda prompt, call: f"Here it is:\n\n```\n**{STATE}\n```\nGood luck!")
    for _ in range(2):
        extractor = StateExtractor(WORLD, model, Journal(tmp_path / "states.jsonl", ExtractedState))
        states = asyncio.run(extractor.extract_all(EPISODES))
        assert states == {episode.task.key: STATE for episode in EPISODES}
    assert len(model.prompts) == len(EPISODES)
    assert all(step.observation.text in "".join(model.prompts) for step in EPISODE.steps)


def test_failed_demonstrations_tell_nothing(tmp_path: Path) -> None:
    model = Scripted(lambda prompt, call: STATE)
    failed = EPISODE.model_copy(update={"success": False})
    assert asyncio.run(StateExtractor(WORLD, model, Journal(tmp_path / "s.jsonl", ExtractedState)).extract_all([failed])) == {}
    assert not model.prompts


@pytest.mark.parametrize(
    "bad",
    [
        "I do not know.",
        STATE.replace("Critical locations: door\n", ""),
        STATE.replace("take key; open door", ""),
        STATE + "\nTask: another",
        Completion(STATE, 1, 1, truncated=True),
        ModelError("time-out"),
    ],
)
def test_states_that_cannot_be_used_are_asked_for_again(bad: str | Completion | ModelError, tmp_path: Path) -> None:
    model = Scripted(lambda prompt, call: bad if call == 0 else STATE)
    assert asyncio.run(StateExtractor(WORLD, model, Journal(tmp_path / "s.jsonl", ExtractedState)).extract(EPISODE)) == STATE
    assert len(model.prompts) == 2
    never = StateExtractor(WORLD, Scripted(lambda prompt, call: bad), Journal(tmp_path / "none.jsonl", ExtractedState))
    assert asyncio.run(never.extract(EPISODE)) is None
    assert not (tmp_path / "none.jsonl").exists()


@pytest.mark.parametrize("filler", ["\n ", "Task: ", "Task:\n", "* ", "```", "<think>", " \n\n"])
def test_no_answer_is_read_for_long(filler: str, tmp_path: Path) -> None:
    hostile = "Task:" + filler * (100_000 // len(filler))
    extractor = StateExtractor(WORLD, Scripted(lambda prompt, call: hostile), Journal(tmp_path / "s.jsonl", ExtractedState))
    began = time.process_time()
    assert asyncio.run(extractor.extract(EPISODE)) is None
    assert time.process_time() - began < 6  # of three attempts


def test_a_state_that_names_what_the_log_does_not_is_not_taken(tmp_path: Path) -> None:
    places = {"box", "jar", "shoe", "hat", "bag", "tin"}

    class Quiet(type(WORLD)):
        def entities(self, text: str) -> set[str]:
            return {word for word in re.findall(r"\w+", text) if word in places | {"cellar"}}

    model = Scripted(lambda prompt, call: STATE.replace("door\nOpt", "cellar\nOpt"))
    extractor = StateExtractor(Quiet(WORLD.config), model, Journal(tmp_path / "s.jsonl", ExtractedState))
    assert asyncio.run(extractor.extract(EPISODE)) is None


def reasons(prompt: str, text: str = "I try this.") -> str:
    asked = prompt.rpartition("Write ")[2]
    first, last = re.search(r"from (\d+) to (\d+)", asked).groups() if "from" in asked else (None, None)  # type: ignore[union-attr]
    numbers = range(int(first), int(last) + 1) if first and last else [int(n) for n in re.findall(r"\d+", asked)]
    return json.dumps({"trajectory": [{"timestep": t, "reason": text} for t in numbers]})


def annotate(model: Scripted, path: Path, demonstration: Episode = BARE) -> Episode:
    return asyncio.run(ReasonAnnotator(WORLD, model, Journal(path, Annotation)).annotate(demonstration))


def test_every_step_gets_a_reason_by_one_call_kept_on_file(tmp_path: Path) -> None:
    model = Scripted(lambda prompt, call: reasons(prompt))
    for _ in range(2):
        annotated = annotate(model, tmp_path / "a.jsonl")
        assert {step.reason for step in annotated.steps} == {"I try this."}
        assert [step.action for step in annotated.steps] == [step.action for step in BARE.steps]
        assert annotated.key == BARE.key
    assert len(model.prompts) == 1


def test_reasons_there_are_stay(tmp_path: Path) -> None:
    model = Scripted(lambda prompt, call: reasons(prompt))
    assert annotate(model, tmp_path / "a.jsonl", EPISODE) == EPISODE and not model.prompts
    half = BARE.model_copy(update={"steps": (EPISODE.steps[0], *BARE.steps[1:])})
    annotated = annotate(model, tmp_path / "a.jsonl", half)
    assert annotated.steps[0] == EPISODE.steps[0]
    assert all(step.reason == "I try this." for step in annotated.steps[1:])


def test_missing_reasons_are_asked_for_again_and_stay_empty_at_last(tmp_path: Path) -> None:
    model = Scripted(lambda prompt, call: reasons(prompt)[:-60] if call < 2 else "no")
    annotated = annotate(model, tmp_path / "a.jsonl")
    assert annotated.steps[0].reason and not annotated.steps[-1].reason
    assert "only for timestep" in model.prompts[1]
    assert len(model.prompts) == 3


def test_a_reason_from_the_future_is_not_taken(tmp_path: Path) -> None:
    class Keys(type(WORLD)):
        def entities(self, text: str) -> set[str]:
            return set(re.findall(r"\bkey\b", text))

    model = Scripted(lambda prompt, call: reasons(prompt, "The key is near."))
    annotated = asyncio.run(ReasonAnnotator(Keys(WORLD.config), model, Journal(tmp_path / "a.jsonl", Annotation)).annotate(BARE))
    for t, step in enumerate(annotated.steps):
        seen = any("key" in observation.text for observation in BARE.history(t).observations)
        known = seen or any("key" in action for action in BARE.steps[t].observation.admissible or ())
        assert bool(step.reason) == known
    assert {bool(step.reason) for step in annotated.steps} == {True, False}


def test_what_failed_calls_left_without_an_answer_is_told_and_not_kept(tmp_path: Path) -> None:
    def half(prompt: str, call: int) -> str | ModelError:
        whole = json.loads(reasons(prompt))
        return json.dumps({"trajectory": whole["trajectory"][:1]}) if call == 0 else ModelError("429")

    journal: Journal[Annotation] = Journal(tmp_path / "a.jsonl", Annotation)
    down = ReasonAnnotator(WORLD, Scripted(half), journal)
    assert [bool(step.reason) for step in asyncio.run(down.annotate(BARE)).steps][:2] == [True, False]
    assert down.lost == ["429"] and not journal
    well = ReasonAnnotator(WORLD, Scripted(lambda prompt, call: reasons(prompt)), journal)
    assert all(step.reason for step in asyncio.run(well.annotate(BARE)).steps)
    assert not well.lost and len(journal) == 1
    states: Journal[ExtractedState] = Journal(tmp_path / "s.jsonl", ExtractedState)
    extractor = StateExtractor(WORLD, Scripted(lambda prompt, call: STATE if call == 0 else ModelError("429")), states)
    asyncio.run(extractor.extract_all(EPISODES[:4]))
    assert extractor.lost == ["429"] * 3 and len(states) == 1
