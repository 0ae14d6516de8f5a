"""InterCode Bash: golds against themselves, the scripted teacher unrolled from the start, and those who do nothing.

    INTERCODE_DATA=... python benchmarks/intercode_teacher.py [--every 1] > benchmarks/intercode_teacher.log
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from time import process_time

from leap.core import History, Task
from leap.envs.base import load_environment, opened
from leap_worlds.intercode.bash.env import BashEnvironment
from leap_worlds.intercode.bash.worlds import Worlds

HORIZON = 10


def gold(environment: BashEnvironment, task: Task) -> float:
    """The reward of the gold's own run, as it is run for the reward."""
    record = environment.record(task)
    with closing(Worlds(environment.boxes, environment.rules, environment.record)) as worlds:
        world = worlds.fresh(record, "roll-in")
        world.last = world.run_gold(record.gold).text
        return worlds.judge(world, record).total


def unrolled(environment: BashEnvironment, task: Task, privilege: int) -> tuple[float, int, Counter[str]]:
    """Reward, actions and rules of the teacher that plays by itself within the horizon."""
    rules: Counter[str] = Counter()
    with opened(environment, task) as session:
        history = History(task=task, observations=(session.observe(),))
        for left in range(HORIZON, 0, -1):
            with environment.coaching(environment.record(task)) as coach:
                advice = coach.advise(history, privilege, left=left)
            if advice is None:
                break
            rules[advice.rule] += 1
            outcome = session.act(advice.action)
            history = history.extend(advice.action, outcome.observation)
            if outcome.done:
                return outcome.score, len(history.actions), rules
    return 0.0, HORIZON, rules


def scripted(environment: BashEnvironment, task: Task, actions: Iterable[str]) -> float:
    """The score of fixed actions."""
    score = 0.0
    with opened(environment, task) as session:
        for action in actions:
            score = session.act(action).score
    return score


def tell(name: str, scores: list[float], rest: str = "") -> None:
    """One line."""
    solved = sum(score == 1.0 for score in scores)
    print(f"{name}: {solved} of {len(scores)} at 1.0, mean reward {sum(scores) / len(scores):.3f}{rest}", flush=True)


def main(environment: BashEnvironment, every: int, privilege: int) -> None:
    """Prints the table."""
    tasks = environment.tasks("all")[::every]
    began = process_time()
    for name, actions in environment.tutor.idle.items():
        tell(name, [scripted(environment, task, actions) for task in tasks])
    found = [(task, gold(environment, task)) for task in tasks]
    tell("gold against gold", [value for _, value in found])
    for task, value in found:
        if value < 1.0:
            print(f"  {task.id}: {value:.2f}  {environment.why_unsolvable(task) or 'not explained'}")
    scores, steps, rules = [], 0, Counter()
    for task in tasks:
        score, actions, used = unrolled(environment, task, privilege)
        scores.append(score)
        steps += actions
        rules += used
        if score < 1.0:
            print(f"  {task.id}: {score:.2f} after {dict(used)}")
    tell(f"teacher at privilege {privilege}, unrolled", scores, f", {steps} actions; by rule {dict(rules)}")
    print(f"{environment.versions()}; {process_time() - began:.0f} s of CPU time in this process")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only every n-th task")
    parser.add_argument("--privilege", type=int, default=50)
    arguments = parser.parse_args()
    world = load_environment("intercode-bash")
    assert isinstance(world, BashEnvironment)
    with closing(world):
        main(world, arguments.every, arguments.privilege)
