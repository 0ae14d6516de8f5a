"""Generated Bash tasks: seeded, disjoint, answerable from the request; on real boxes the teacher solves them."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from torch.nn.functional import cosine_similarity

from leap.core import Actor, Episode, History, Rejection, Step, StopReason, Task
from leap.envs.base import opened
from leap.errors import LeapError
from leap.models.mock import MockModel
from leap.models.scratch import ScratchConfig, build_scratch
from leap.policies.base import ExpertPolicy, ScriptedPolicy, TeacherPolicy
from leap.testing.play import played
from leap.testing.teachers import model_teacher
from leap_worlds.intercode.bash.env import BashConfig, BashEnvironment
from leap_worlds.intercode.bash.generated.config import BashFamilyConfig, Operation, Select
from leap_worlds.intercode.bash.generated.family import Family
from leap_worlds.intercode.bash.generated.voice import names, vocabulary

SMALL = BashFamilyConfig(file_systems={"train": 6, "valid": 3, "unseen": 3})


def test_equal_settings_give_equal_tasks_and_splits_share_no_file_system() -> None:
    one, two, other = Family(SMALL), Family(SMALL), Family(SMALL.model_copy(update={"seed": 1}))
    for split in SMALL.file_systems:
        assert one.split(split) == two.split(split) != other.split(split)
    scripts = [tree.script() for split in SMALL.file_systems for tree in one.trees(split)]
    assert len(set(scripts)) == len(scripts)


def test_every_kind_occurs_and_the_request_tells_what_the_look_needs() -> None:
    tasks = Family(SMALL).split("train")
    assert {task.request.operation for task in tasks} == set(Operation)
    assert {task.request.select for task in tasks} == {*Select, None}
    for task in tasks:
        hidden = task.request.select not in (None, Select.TOLD)
        assert (task.look is not None) == hidden
        assert not hidden or task.path not in task.query


def test_the_script_makes_the_tree(tmp_path: Path) -> None:
    tree = Family(SMALL).trees("train")[0]
    script = tree.script().replace(tree.root, f"{tmp_path}{tree.root}")
    subprocess.run(["bash", "-c", script], check=True)
    for path, lines in tree.files.items():
        text = Path(f"{tmp_path}{path}").read_text()
        assert text.replace(str(tmp_path), "").splitlines() == list(lines)  # a note's line is a path, and was moved too


def test_options_that_cannot_be() -> None:
    with pytest.raises(ValidationError, match="machine"):
        BashConfig(image="machine")
    with pytest.raises(ValidationError, match="folders"):
        BashFamilyConfig(folders=(1, 1))
    with pytest.raises(LeapError, match="no split"):
        BashEnvironment(BashConfig(source="generated", generator=SMALL)).tasks("test")


def test_a_smaller_lexicon_is_used_alone_and_large_enough() -> None:
    config = SMALL.model_copy(update={"stems": 40, "endings": 2, "words": 20})
    family = Family(config)
    texts = "\n".join(f"{task.query} {task.gold}" for task in family.split("train"))
    texts += "\n" + "\n".join(line for tree in family.trees("train") for lines in tree.files.values() for line in lines)
    names = set(re.findall(r"\b([a-z]+)\.([a-z]+)\b", texts))
    assert {ending for _, ending in names} == set(config.lexicon.endings)
    assert {stem for stem, _ in names} <= set(config.lexicon.stems)
    with pytest.raises(ValidationError, match="too few"):
        BashFamilyConfig(stems=20)


def test_names_are_single_tokens_and_the_same_in_a_path_and_in_a_list(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    lexicon = SMALL.lexicon
    size = ScratchConfig(layers=1, width=64, heads=1, mlp=16)
    build_scratch(size, vocabulary(lexicon), tmp_path, seed=0, names=names(lexicon))
    tokenizer, model = AutoTokenizer.from_pretrained(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path)
    path, listed, told = (
        tokenizer.tokenize(t) for t in (" /depot/plans/apple.txt", "plans\napple.txt\n", " plans apple.txt")
    )
    assert path == [" /depot", "/plans", "/", "apple.txt"]
    assert listed == ["plans", "\n", "apple.txt", "\n"] and told == [" plans", " apple.txt"]

    def alike(one: str, other: str) -> float:
        vectors = model.get_input_embeddings().weight.detach()[tokenizer.convert_tokens_to_ids([one, other])]
        return float(cosine_similarity(vectors[0], vectors[1], dim=0))

    pairs = [("/plans", "plans"), ("/plans", " plans"), ("apple.txt", " apple.txt")]
    assert min(alike(*pair) for pair in pairs) > 0.3 > abs(alike("/plans", " apple.txt"))


@pytest.fixture(scope="module")
def world(boxes: None) -> Iterator[BashEnvironment]:
    world = BashEnvironment(BashConfig(source="generated", image="machine", generator=SMALL, time_limit=3))
    try:
        world.prepare()
    except LeapError as error:
        pytest.skip(f"no sandbox here: {error}")
    yield world
    world.close()


def test_the_teacher_solves_what_the_expert_does_not_always(world: BashEnvironment) -> None:
    solved = {"expert": 0, "teacher": 0}
    tasks = world.tasks("train", limit=24)
    for task in tasks:
        for who in solved:
            with opened(world, task) as session:
                history, expert = History(task=task, observations=(session.observe(),)), world.tutor.expert(task)
                for _ in range(8):
                    told = expert.decide(history) if who == "expert" else world.tutor.correct(history, session.privileged(), 50)
                    assert told is not None
                    outcome = session.act(told.action)
                    history = history.extend(told.action, outcome.observation)
                    if outcome.done:
                        solved[who] += outcome.success
                        break
    assert solved["teacher"] == len(tasks) > solved["expert"] > 0


def test_a_model_teachers_corrections_are_verified_by_roll_in(world: BashEnvironment) -> None:
    task = next(task for task in world.tasks("train") if world.source.request(task.id).operation is Operation.APPEND)
    steps = []
    with opened(world, task) as session:
        seen = session.observe()
        for action in ("ls /", "submit"):
            steps.append(Step(observation=seen, reason="I see.", action=action))
            outcome = session.act(action)
            seen = outcome.observation
    assert 0.0 < outcome.score < 1.0
    episode = Episode(
        task=task, actor=Actor(name="student"), horizon=8, steps=tuple(steps), final=seen, score=outcome.score, success=False,
        stop=StopReason.ENDED,
    )  # fmt: skip
    record = world.record(task)

    def corrected(first: str, second: str) -> list[Rejection | None]:
        entries = [
            {"timestep": t, "leave_as_it_is": False, "corrected_reason": "I act.", "corrected_action": action}
            for t, action in enumerate((first, second))
        ]
        answer = json.dumps({"summary": "s", "trajectory": entries})
        teacher = model_teacher(world, MockModel(lambda request: answer), verify=True)
        return [correction.rejected for correction in asyncio.run(teacher.correct(episode))]

    assert corrected(f"cd {world.source.request(task.id).root} && ls", record.gold) == [
        None,
        None,
    ]  # a trap, but one can leave it
    # At the second step the student submitted too soon, which is no better than what is lost there.
    assert corrected("rm -rf /.git", "rm -rf /.git") == [Rejection.WORSE, None]


def test_16_slow_commands_at_once_take_less_than_twice_one(world: BashEnvironment) -> None:
    policy = ScriptedPolicy("sleeper", ["sleep 1"])
    policy.concurrency = 16
    tasks = world.tasks("train", limit=16)

    def seconds(tasks: list[Task]) -> float:
        began = time.monotonic()
        assert len(played(world, policy, tasks, horizon=1)) == len(tasks)
        return time.monotonic() - began

    for attempt in range(3):  # the machine may be busy with something else
        took, alone = seconds(tasks), seconds(tasks[:1])
        if took < 2 * alone or attempt == 2:
            break
    assert took < 2 * alone and alone >= 1


def test_many_students_that_submit_at_once_are_judged_as_one_by_one(world: BashEnvironment) -> None:
    tasks = world.tasks("train", limit=12)
    for policy in (ExpertPolicy(world), TeacherPolicy(world, 50)):
        together = played(world, policy, tasks, horizon=8)
        policy.concurrency = 1
        alone = played(world, policy, tasks, horizon=8)
        skipped = {"seconds"}
        assert [one.model_dump(exclude=skipped) for one in together] == [one.model_dump(exclude=skipped) for one in alone]
