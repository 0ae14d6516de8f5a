"""The WebShop teacher from any state: what it brings after 0 to 6 random actions, beside what could be had at all.

    python benchmarks/webshop_oracle.py [--goals 300] [--seed 0] [--set KEY=VALUE ...] [--split train] [--wander 6]

For each goal a random customer clicks and searches 0 to 6 times (never buys); then the teacher plays on, within 15 actions in
all. With `--wander 0` the teacher plays from the start.

Options of the environment are given as to `leap validate`, for example --set source=official.

Attainable is, for each goal, the most that a purchase can bring with the options that can be clicked, time left aside: of the
product the goal was written for, and where that does not bring all, of any that the goal's searches find. It is below 1 where a
goal asks for what none of them has.

The figure aimed at, 0.98 of what is attainable, is the oracle's: privilege 100, where the teacher follows the plan that brings
most, whatever the student could know. Below that it chooses among what the instruction and the pages seen make plausible, so that
a student can learn it: it may not search for hidden words at will, nor open a product that nothing speaks for. What it then
leaves is no error of the plan, and no figure is set for it; privilege 0 is the unprivileged shopper.
"""

from __future__ import annotations

import argparse
import platform
import random
import time
from collections import Counter

from leap.cli.validate import parse_options
from leap.core import History
from leap.envs.base import load_environment, opened
from leap_worlds.webshop.memory import BUY

HORIZON = 15
AIM = 0.98
WHO = {0: "the shopper, who knows nothing", 100: "the oracle"}
SEARCH = "search[<search query>]"


def play(environment, task, level: int, wander: int) -> tuple[float, float, int, list[str]]:
    """Score, attainable score, random actions, the teacher's actions."""
    rng = random.Random(task.id)
    with opened(environment, task) as session:
        history = History(task=task, observations=(session.observe(),))
        best = float(session.privileged().facts["best"])
        wandered = rng.randint(0, wander)
        for _ in range(wandered):
            listed = [action for action in history.now.admissible or () if action not in (BUY, SEARCH)]
            words = " ".join(rng.sample(task.instruction.replace("[", " ").replace("]", " ").split(), 3))
            action = rng.choice(listed) if listed and rng.random() < 0.8 else f"search[{words}]"
            history = history.extend(action, session.act(action).observation)
        score = 0.0
        while len(history.actions) < HORIZON:
            decision = environment.tutor.correct(history, session.privileged(), level)
            if decision is None:
                break
            outcome = session.act(decision.action)
            history = history.extend(decision.action, outcome.observation)
            score = outcome.score
            if outcome.done:
                break
        return score, best, wandered, list(history.actions[wandered:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--goals", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", default="train")
    parser.add_argument("--wander", type=int, default=6)
    parser.add_argument("--levels", type=int, nargs="+", default=[0, 25, 50, 75, 100])
    parser.add_argument("--set", action="append", default=[], dest="options")
    arguments = parser.parse_args()
    environment = load_environment("webshop", parse_options([f"patience={HORIZON}", *arguments.options]))
    environment.prepare()
    tasks = environment.tasks(arguments.split, limit=arguments.goals, seed=arguments.seed)
    print(f"{platform.platform()}; {environment.versions()['webshop']}; {environment.versions()['webshop reward']}")
    sample = f"{len(tasks)} goals of {arguments.split} (sample {arguments.seed})"
    print(f"{sample}, 0 to {arguments.wander} random actions before, {HORIZON} in all")
    for level in arguments.levels:
        began = time.process_time()
        played = [play(environment, task, level, arguments.wander) for task in tasks]
        seconds = time.process_time() - began
        scores, best = [one[0] for one in played], [one[1] for one in played]
        steps = sum(len(one[3]) for one in played)
        searches = [[action for action in one[3] if action.startswith("search[")] for one in played]
        again = sum(len(set(made)) < len(made) for made in searches) / len(played)
        short = Counter(round(b - s, 2) for s, b in zip(scores, best, strict=True) if s < b - 1e-9)
        who = f" ({WHO[level]})" if level in WHO else ""
        print(
            f"privilege {level:3}{who}: mean reward {sum(scores) / len(scores):.4f}, attainable {sum(best) / len(best):.4f}, "
            f"share {sum(scores) / sum(best):.4f}; reward 1 in {sum(s == 1.0 for s in scores) / len(scores):.1%}; "
            f"{steps / len(played):.1f} actions; a search made twice in {again:.1%}; {1000 * seconds / steps:.1f} ms CPU a step; "
            f"short of it by {dict(short.most_common(4))}"
        )
        if level == 100:
            share = sum(scores) / sum(best)
            print(f"oracle: {share:.4f} of what is attainable; {AIM} aimed at: {'met' if share >= AIM else 'NOT met'}")


if __name__ == "__main__":
    main()
