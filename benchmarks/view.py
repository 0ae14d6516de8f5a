"""`leap view` on a made run of 10,000 episodes: memory of the server, and how long its answers take.

    python benchmarks/view.py [EPISODES] [STEPS]
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

from leap.core import Actor, Correction, Episode, Observation, Rejection, Step, StopReason, Task
from leap.evaluation import evaluate_episodes
from leap.files import write_json
from leap.recipe import dump_recipe, load_recipe
from leap.recipes import find_recipe
from leap.runs.directory import RunDirectory, marker

KINDS = ("pick_and_place", "look_at_obj", "pick_clean", "pick_heat", "pick_cool", "pick_two")
PLACES = [f"{name} {n}" for name in ("cabinet", "drawer", "countertop", "shelf", "fridge", "desk") for n in range(1, 8)]


def main(episodes: int = 10_000, steps: int = 20, *, root: Path | None = None) -> None:
    with TemporaryDirectory() as folder:
        run = RunDirectory(root or Path(folder) / "made")
        make(run, episodes, steps)
        size = sum(path.stat().st_size for path in run.root.rglob("*.jsonl"))
        print(f"{episodes} episodes of up to {steps} steps, corrections of half of them: {size / 1e6:.0f} MB")
        if root is None:
            measure(run)


def make(run: RunDirectory, episodes: int, steps: int) -> None:
    """A run of the quickstart's recipe: half of the episodes rollouts, corrected; the others evaluations."""
    recipe = load_recipe(find_recipe("quickstart"), ["iterations=2"])
    run.root.mkdir(parents=True)
    run.recipe.write_text(dump_recipe(recipe), encoding="utf-8")
    draw, each = random.Random(0), episodes // 8
    for i in range(3):
        curve = [[step, 3.0 * 0.98**step + 0.1 * draw.random()] for step in range(1, 200)]
        write_json(marker(run.checkpoint(i)), {"key": f"key-{i}", "iteration": i, "result": {"loss": 0.1}, "losses": [curve]})
        scores = []
        for split in (recipe.environment.validation, *recipe.environment.test)[: 2 if i else 1]:
            played = [episode(draw, split, n, i, steps) for n in range(each)]
            append(run.played(f"pi_{i}", split), played)
            scores.append(evaluate_episodes(played, policy=f"pi_{i}").model_dump(mode="json"))
        write_json(run.evaluation(f"pi_{i}"), scores)
        if i:
            played = [episode(draw, recipe.environment.train, n, i - 1, steps) for n in range(episodes // 4)]
            append(run.episodes(i), played)
            append(run.corrections(i), [one for made in played for one in corrected(draw, made)])


def append(path: Path, records: list[Episode] | list[Correction]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.writelines(record.line() for record in records)


def episode(draw: random.Random, split: str, number: int, i: int, most: int) -> Episode:
    goal = f"put thing {number} in its place"
    task = Task(env="alfworld", split=split, id=f"{split}/{number}", instruction=goal, kind=KINDS[number % 6])
    solved, made = draw.random() < 0.4 + 0.2 * i, list[Step]()
    for _ in range(draw.randint(5, most)):
        seen = ", ".join(draw.sample(PLACES, 12))
        offered = tuple(f"go to {place}" for place in draw.sample(PLACES, 14))
        action = draw.choice(offered) if draw.random() < 0.97 else "dance"
        reason = f"I should look at {draw.choice(PLACES)} next, for it may hold what I need."
        shown = Observation(text=f"You arrive. On it you see {seen}.", admissible=offered)
        made.append(Step(observation=shown, reason=reason, action=action, completion=f"REASON: {reason}\nACTION: {action}"))
    stop = StopReason.SUCCESS if solved else draw.choice((StopReason.HORIZON, StopReason.ENDED))
    return Episode(
        task=task,
        actor=Actor(name="student", checkpoint=f"key-{i}", iteration=i),
        horizon=most,
        steps=tuple(made),
        final=Observation(text="The end."),
        score=float(solved),
        success=solved,
        stop=stop,
    )


def corrected(draw: random.Random, one: Episode) -> list[Correction]:
    names = {"teacher": "expert", "privilege": 50, "episode": one.key}
    return [
        Correction(
            t=t,
            reason=f"The {draw.choice(PLACES)} is where it is.",
            action=step.action if draw.random() < 0.5 else "go to desk 1",
            rejected=Rejection.NOT_ADMISSIBLE if draw.random() < 0.1 else None,
            **names,
        )
        for t, step in enumerate(one.steps)
    ]


def measure(run: RunDirectory) -> None:
    process = subprocess.Popen([sys.executable, "-m", "leap", "view", str(run.root)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url, seconds = process.stdout.readline().split()[0], [0.0]

        def asked(what: str) -> bytes:
            began = time.perf_counter()
            with urlopen(url + what) as answer:
                content = answer.read()
            rss = next(line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
            ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
            seconds.append(sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"))
            spent = seconds[-1] - seconds[-2]
            took = f"{time.perf_counter() - began:6.2f} s, {spent:5.2f} s of them on a processor, {len(content) / 1e3:5.0f} kB"
            print(f"{what.partition('&')[0] or 'the page':28} {took}, peak memory so far {int(rss.split()[1]) / 1024:.0f} MiB")
            return content

        asked("")
        table = json.loads(asked("rows"))
        asked(f"rows?seen={table['version']}")
        asked("")
        first = dict(zip(table["columns"], table["rows"][-1], strict=True))
        file = table["groups"][first["group"]]["file"]
        asked(f"episode?place={first['place']}&file={file}")
        asked(f"step?t=3&place={first['place']}&file={file}")
        asked("search?text=fridge%207%20next")
        asked("search?text=action")
        with run.episodes(2).open("ab") as journal:
            journal.write(episode(random.Random(1), "train", 10**6, 1, 20).line())
        assert len(json.loads(asked(f"rows?seen={table['version']}"))["rows"]) == len(table["rows"]) + 1
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    numbers, folder = sys.argv[1:3], sys.argv[3:]  # a folder: the run is made there, and not measured
    main(*map(int, numbers), root=Path(folder[0]) if folder else None)
