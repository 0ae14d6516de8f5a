"""The environment: its contract, what an action shows, where an episode ends, and what is hidden."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from leap.check import check_env
from leap.cli.validate import validate_environment
from leap.core import History, Task
from leap.envs.base import Environment, Outcome
from leap_worlds.tasks.env import TasksEnvironment, TaskSession

MakeTasks = Callable[..., TasksEnvironment]
Write = Callable[..., Path]


def call(name: str, **arguments: str) -> str:
    return json.dumps({"name": name, "arguments": arguments})


def bash(command: str) -> str:
    return call("bash", command=command)


SUBMIT = call("submit")


def session(environment: TasksEnvironment, name: str) -> TaskSession:
    made = environment.start(task(environment, name))
    assert isinstance(made, TaskSession)
    return made


def task(environment: TasksEnvironment, name: str) -> Task:
    return next(each for each in environment.tasks("all") if each.id == name)


def play(environment: TasksEnvironment, name: str, *actions: str) -> Outcome:
    opened = session(environment, name)
    try:
        for action in actions:
            outcome = opened.act(action)
        return outcome
    finally:
        opened.close()


@pytest.mark.parametrize("actions", ["tools", "text"])
def test_it_keeps_the_contract_of_environments(boxes_here: MakeTasks, folders: Path, actions: str) -> None:
    environment = boxes_here(folders / "list-of-commands", actions=actions)
    assert [finding.text for finding in check_env(environment, tasks=1, steps=3) if not finding.ok] == []


def test_files_the_folder_and_what_runs_stay_and_variables_do_not(boxes_here: MakeTasks) -> None:
    opened = session(boxes_here(), "plain-old")
    assert opened.observe().text == "A terminal is open in /app."
    shown = [
        opened.act(action).observation.text
        for action in (
            bash("cd /tmp && X=1 && (sleep 100 >/dev/null 2>&1 & echo $! > pid)"),
            bash("pwd; echo [$X]; kill -0 $(cat pid) && echo runs"),
            call("write_file", path="sub/a b", content="one\ntwo\n"),
            call("read_file", path="/tmp/sub/a b"),
            call("read_file", path="/tmp"),
            bash("exit 3"),
            bash("printf x; false"),
            bash("rm -rf /tmp/sub; mkdir /tmp/sub; cd /tmp/sub; rmdir /tmp/sub"),
            bash("pwd"),
            bash("echo 'unclosed"),
        )
    ]
    assert shown[:7] == [
        "[exit code 0]",
        "/tmp\n[]\nruns\n[exit code 0]",
        "8 bytes were written to sub/a b.",
        "one\ntwo\n[exit code 0]",
        "/tmp: is a folder\n[exit code 1]",
        "[exit code 3]",
        "x\n[exit code 1]",
    ]
    assert shown[8].endswith("[/tmp/sub is gone; the working directory is / now]\n[exit code 0]")
    assert "unexpected EOF" in shown[9]
    opened.close()


def test_long_outputs_are_cut_in_the_middle_and_slow_commands_stopped(boxes_here: MakeTasks, folders: Path) -> None:
    environment = boxes_here(folders / "plain-old", observation_limit=300, time_limit=1.0)
    long = play(environment, "plain-old", bash("seq 1000")).observation.text
    assert (
        long.startswith("1\n2\n")
        and "characters left out" in long
        and long.endswith("\n1000\n[exit code 0]")
        and len(long) < 400
    )
    slow = play(environment, "plain-old", bash("echo begun; sleep 50")).observation.text
    assert slow == "begun\n[stopped after 1 s; everything that was running has ended]"


def test_what_is_no_call_is_answered_in_words_and_changes_nothing(boxes_here: MakeTasks) -> None:
    for action, said in [
        ("ls", "That is no call of a tool."),
        (call("look"), "There is no tool 'look'"),
        (bash("ls").replace("command", "cmd"), "bash: "),
    ]:
        outcome = play(boxes_here(), "plain-old", action)
        assert outcome.observation.text.startswith(said) and not outcome.done


def test_the_work_is_judged_when_it_is_handed_in(boxes_here: MakeTasks) -> None:
    done = play(boxes_here(), "plain-old", bash("echo hello > greeting.txt"), SUBMIT)
    assert done.done and done.success and done.score == done.reward == 1 and done.parts == {}
    failed = play(boxes_here(), "plain-old", SUBMIT)
    assert (
        failed.done
        and not failed.success
        and failed.score == 0
        and failed.observation.text == "The work was handed in."
    )


def test_named_rewards_are_the_score_s_parts(boxes_here: MakeTasks) -> None:
    outcome = play(boxes_here(), "named-rewards", bash("seq 5 > numbers.txt"), SUBMIT)
    assert outcome.parts == {"numbers": 1, "sum": 0, "reward": 0} and outcome.score == 0


def test_phases_are_told_one_after_the_other(boxes_here: MakeTasks) -> None:
    opened = session(boxes_here(), "three-phases")
    for phase, word in (("first", "one"), ("second", "two"), ("third", "three")):
        opened.act(bash(f"echo {word} > /app/{phase}.txt"))
        outcome = opened.act(SUBMIT)
        assert outcome.done == (phase == "third")
    assert outcome.success and outcome.score == 1
    opened.close()
    last = play(boxes_here(), "last-phase-counts", SUBMIT, bash("touch /app/final"), SUBMIT)
    assert last.success and last.score == 1  # although the first phase brought a quarter


def test_time_and_turns_end_in_the_tests(boxes_here: MakeTasks, folders: Path) -> None:
    outcome = play(boxes_here(), "little-time", bash("touch /app/quick"), bash("sleep 30"))
    assert outcome.done and outcome.success and "[no time is left]" in outcome.observation.text
    environment = boxes_here(folders / "plain-old", turns=2)
    outcome = play(environment, "plain-old", bash("true"), bash("echo hello > greeting.txt"))
    assert outcome.done and outcome.success


def test_text_actions_are_what_is_typed(boxes_here: MakeTasks, folders: Path) -> None:
    environment = boxes_here(folders / "plain-old", actions="text")
    outcome = play(environment, "plain-old", "cd /app\necho hello > greeting.txt", " submit\n")
    assert outcome.success


def test_variables_of_this_machine_are_told_only_where_the_recipe_allows(
    boxes_here: MakeTasks, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAP_TASK_COLOUR", "blue")
    path = folders / "told-by-variables"
    assert play(boxes_here(path), path.name, bash("echo $COLOUR in $PWD")).observation.text.startswith(
        "red in /srv/work"
    )
    told = play(boxes_here(path, host_env=["LEAP_TASK_COLOUR"]), path.name, bash("echo $COLOUR"))
    assert told.observation.text.startswith("blue")


def test_a_variable_that_may_not_be_told_is_one_line(boxes_here: MakeTasks, one_task: Write) -> None:
    environment = boxes_here(one_task("true", '[environment.env]\nKEY = "${HOME}"\n'))
    (only,) = environment.tasks("all")
    assert environment.prove(only) == (
        "task/task.toml: environment.env.KEY: HOME of this machine may not be told; name it in the option host_env to allow it"
    )


# ---- what is hidden ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "there", "not_there"),
    [
        (25, ["- apple is counted"], ["counts.txt was moved", "sort", "uniq"]),
        (
            50,
            ["- apple is counted", "Programs that it uses: cd, cat, mkdir", "/app/counts.txt"],
            ["count the fruit of all lists"],
        ),
        (75, ["2. count the fruit of all lists"], ["uniq -c"]),
        (100, ["uniq -c", "check() {", "Reference solution"], []),
    ],
)
def test_each_level_tells_more(
    boxes_here: MakeTasks, folders: Path, level: int, there: list[str], not_there: list[str]
) -> None:
    environment = boxes_here(folders / "list-of-commands", tells=level)
    opened = session(environment, "list-of-commands")
    text = opened.privileged().text
    assert all(word in text for word in there) and not any(word in text for word in not_there)
    opened.close()


def test_checks_are_those_of_the_student_s_own_state_and_asking_changes_nothing(boxes_here: MakeTasks) -> None:
    opened = session(boxes_here(), "plain-old")
    before = opened.privileged()
    assert "- the greeting is there" in before.text and before.facts["rewards"] == {"reward": 0}
    opened.act(bash("echo hello > greeting.txt"))
    assert opened.privileged().text.startswith("All checks pass now.")
    assert "test.sh" not in opened.act(bash("ls -R /tests /logs /solution")).observation.text
    assert opened.act(SUBMIT).success
    opened.close()


def test_the_plan_is_what_is_left_of_the_solution_and_leads_there(boxes_here: MakeTasks) -> None:
    opened = session(boxes_here(), "list-of-commands")
    plan = opened.privileged().plan
    assert plan is not None and len(plan) == 5 and plan[-1] == SUBMIT
    opened.act(plan[0])
    opened.act(bash("ls"))
    assert opened.privileged().plan == plan[1:]
    for action in plan[1:]:
        outcome = opened.act(action)
    assert outcome.success
    opened.close()


@pytest.mark.parametrize("name", ["bytes-out", "three-phases", "named-rewards"])
@pytest.mark.parametrize("actions", ["tools", "text"])
def test_plans_of_other_solutions_lead_there_too(boxes_here: MakeTasks, folders: Path, name: str, actions: str) -> None:
    environment = boxes_here(folders / name, actions=actions)
    opened = session(environment, name)
    plan = opened.privileged().plan
    opened.close()
    assert plan is not None and play(environment, name, *plan).success


def test_the_scripted_teacher_says_the_next_command_with_the_comment_as_its_reason(boxes_here: MakeTasks) -> None:
    environment = boxes_here()
    opened = session(environment, "list-of-commands")
    state, tutor = opened.privileged(), environment.tutor
    history = History(task=task(environment, "list-of-commands"), observations=(opened.observe(),))
    said = tutor.correct(history, state, 100)
    assert (
        said is not None
        and said.reason == "Next I go to the folder of the lists."
        and said.action == bash('cd "/app/in box"')
    )
    assert tutor.correct(history, state, 0) is None
    assert asyncio.run(tutor.roll_in(history, said.action, 10)) == 1.0
    assert asyncio.run(tutor.roll_in(history, bash("rm -rf '/app/in box'"), 10)) == 0.0
    opened.close()


def test_a_solution_that_is_no_list_is_not_said_command_by_command(boxes_here: MakeTasks) -> None:
    environment = boxes_here()
    opened = session(environment, "bytes-out")
    history = History(task=task(environment, "bytes-out"), observations=(opened.observe(),))
    assert environment.tutor.correct(history, opened.privileged(), 100) is None
    opened.close()


# ---- the command ------------------------------------------------------------------------------------------------------


def test_leap_validate_names_each_exception(
    boxes_here: MakeTasks, one_task: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes_here()  # skips where there are none
    one_task(
        "[ -e /x ] && echo 1 > /logs/verifier/reward.txt || echo 0 > /logs/verifier/reward.txt",
        name="set/good",
        solution="touch /x",
    )
    one_task("echo 0.5 > /logs/verifier/reward.txt", name="set/half")
    options = [f"path={tmp_path / 'set'}", "sandbox=namespace", "bases={'debian:*': machine}"]
    assert not validate_environment("tasks", [], options, None)["ok"]
    told = capsys.readouterr().out
    assert "tasks all: the solution and no less solves 1 of 2 tasks" in told
    assert "  half: the solution does not pass: reward 0.5" in told


def test_an_environment_proves_nothing_by_itself() -> None:
    assert Environment.prove(None, None) is None  # type: ignore[arg-type]


# ---- what was done, for tests that read it -----------------------------------------------------------------------------

READS = 'grep -q \'"command": "echo hello"\' /logs/agent/trajectory.json && grep -q ATIF-v1 /logs/agent/trajectory.json'


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize(
    "planted",
    [
        "true",
        "echo '{}' > /logs/agent/trajectory.json",
        "rm -r /logs/agent; ln -s /app /logs/agent",
        "rm -r /logs; mkdir /app/x; ln -s /app/x /logs",
    ],
)
def test_tests_read_what_was_done_and_no_student_writes_it(
    boxes_here: MakeTasks, one_task: Write, planted: str, separate: bool
) -> None:
    toml = (
        'artifacts = ["/logs/agent/trajectory.json"]\n[verifier]\nenvironment_mode = "separate"\n' if separate else ""
    )
    folder = one_task(f"if {READS}; then echo 1; else echo 0; fi > /logs/verifier/reward.txt", toml)
    environment = boxes_here(folder)
    assert play(environment, "task", bash("echo hello"), bash(planted), SUBMIT).score == 1.0
    assert play(environment, "task", bash(planted), SUBMIT).score == 0.0


def test_a_phase_s_trajectory_is_its_own(boxes_here: MakeTasks, one_task: Write) -> None:
    told = "[ $(grep -c function_name /logs/agent/trajectory.json) = 3 ]"
    test = f"if {told}; then echo 1; else echo 0; fi > /logs/verifier/reward.txt"
    files = {f"steps/{name}/instruction.md": "Do.\n" for name in ("a", "b")}
    toml = 'multi_step_reward_strategy = "final"\n[[steps]]\nname = "a"\n[[steps]]\nname = "b"\n'
    environment = boxes_here(one_task(test, toml, **files), actions="text")
    assert play(environment, "task", "echo a", "submit", "echo b", "echo c", "submit").score == 1.0
    assert play(environment, "task", "echo a", "echo b", "submit", "echo c", "submit").score == 0.0


def test_seconds_of_boxes_are_counted_and_priced(boxes_here: MakeTasks, folders: Path) -> None:
    environment = boxes_here(folders / "judged-elsewhere", box_usd_per_hour=3.6)
    assert environment.used() == {"box_seconds": 0.0, "box_usd": 0.0}
    session = environment.start(environment.tasks("all")[0])
    time.sleep(0.2)
    assert environment.used()["box_seconds"] >= 0.2, "a box that is open counts"
    session.act(SUBMIT)
    session.close()
    used = environment.used()
    assert used == environment.used() and used["box_usd"] == pytest.approx(used["box_seconds"] / 1000)
    session.close()
    assert used == environment.used()
    assert "box_usd" not in boxes_here(folders / "judged-elsewhere").used()
