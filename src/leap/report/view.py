"""What the page of a run that is served asks for (`leap.report.server`). Reads only, and takes no lock: the run may go on.

The page is the report's, made anew as the run goes on, with every episode on file in its list: the browser asks for one when it
is opened.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from leap.core import Correction, Episode, JsonObject, content_key
from leap.envs.base import Environment, load_environment
from leap.envs.live import states_along
from leap.files import read_at
from leap.models.calls import OUTCOMES, Call, CallFilter, Outcome
from leap.models.ledger import look_at_calls
from leap.policies.fitting import without_oldest
from leap.policies.rendering import Renderer
from leap.report import words
from leap.report.calls import CallShown, asked
from leap.report.collect import Source, collect
from leap.report.index import COLUMNS, Index, row
from leap.report.model import Report, Shown
from leap.report.page import Live, UnderWay, jinja_of, render
from leap.report.trajectories import Texts, pack
from leap.runs.directory import Played, RunDirectory
from leap.runs.open import recipe_of
from leap.runs.table import Stage, stage_table
from leap.sync import run_sync
from leap.training.losses import last_step

NEWEST = 30
"""Calls shown at first."""

Query = dict[str, str]
Answer = tuple[str, str]
"""Type and content."""


class RunView:
    """One run, as its page asks for it. Safe in threads.

    Args:
        root: The run directory.
        environment: Where episodes are replayed for their privileged states; the recipe's own, made ready when that is asked
            for, if None.

    Raises:
        LeapError: There is none, or it cannot be read.
    """

    def __init__(self, root: Path, environment: Environment | None = None) -> None:
        self.root, self.recipe, self.run = root, recipe_of(root), RunDirectory(root)
        self._source = Source(self.recipe, self.run, Index())
        self._lock, self._replays = threading.RLock(), threading.Lock()  # the page goes on while a world is made ready
        self._report: Report | None = None
        self._world = environment
        self.answers: dict[str, Callable[[Query], Answer]] = {
            "rows": lambda asked: _json(self.rows(asked.get("seen", ""))),
            "files": lambda asked: _json([shown.model_dump(mode="json") for _, shown in self._files()]),
            "episode": lambda asked: _json(self.episode(*self._asked(asked))),
            "states": lambda asked: _json(self.states(self._asked(asked)[1])),
            "step": lambda asked: ("text/html", self.step(*self._asked(asked), int(asked["t"]))),
            "calls": lambda asked: ("text/html", self.calls(asked)),
            "search": lambda asked: _json(self.search(asked["text"])),
        }

    def page(self, names: Sequence[str], number: int) -> str:
        """The whole page, of the run of that number among those served."""
        with self._lock:
            self._report, _ = collect(self.recipe, self.run, per_group=0, index=self._source.index)
            known = {"runs": names, "run": number, "calls": self.run.calls.exists()}
            return render(self._report, known, live=self._live(names, number))

    def rows(self, seen: str) -> dict[str, object]:
        """How far the run is; and the list of all episodes, unless the version of it that was seen is the newest."""
        with self._lock:
            files = self._files()
            taught = [self._source.taught(one) for one, _ in files]
            totals = [[shown.title, shown.total, made.counts.total()] for (_, shown), made in zip(files, taught, strict=True)]
            answer: dict[str, object] = {"version": content_key(totals), "sections": self._written()[1]}
            answer["progress"] = jinja_of().get_template("progress.html.j2").render(live=self._live((), 0))
            if seen != answer["version"]:
                answer["groups"] = [shown.model_dump(mode="json") for _, shown in files]
                answer["columns"] = ["group", *COLUMNS]
                answer["rows"] = [
                    [group, *row(one, made.of.get(one.key))]
                    for group, ((file, _), made) in enumerate(zip(files, taught, strict=True))
                    for one in self._source.episodes(file)
                ]
            return answer

    def episode(self, file: Played, episode: Episode) -> dict[str, object]:
        """An episode with its corrections."""
        texts: Texts = {}
        return {"episode": pack(episode, self._corrections(file, episode), (), texts), "texts": list(texts)}

    def states(self, episode: Episode) -> list[str]:
        """The privileged state before each step, from a replay. The environment is made ready for that once."""
        with self._replays:
            if self._world is None:
                self._world = load_environment(self.recipe.environment.name, self.recipe.environment.options)
                self._world.prepare()
            return [state.text for state in run_sync(states_along(self._world, episode))]

    def step(self, file: Played, episode: Episode, t: int) -> str:
        """What was asked and answered at a step; of step -1, about the whole episode."""
        about = CallFilter(task=episode.task.id, step=None if t < 0 else t)
        stages = {f"{kind} {file.iteration}" for kind in ("rollout", "correct", "extract")} | {f"baseline {episode.actor.name}"}

        def fits(one: Call) -> bool:
            return one.task == episode.task.id and one.stage in stages and (t >= 0 or one.step is None)

        calls = self._calls(about, fits)
        prompt, problem = "", ""
        if t >= 0:
            try:
                prompt = self.prompt(episode, t)
            except Exception as error:  # an environment's own code may raise whatever it likes
                problem = f"The prompt cannot be made again here: {error}"
        answer = episode.steps[t].completion if t >= 0 else ""
        return self._html("step.html.j2", calls=calls, prompt=prompt, problem=problem, answer=answer, episode=t < 0)

    def prompt(self, episode: Episode, t: int) -> str:
        """The messages that a student was shown at a step; none where another acted."""
        step = episode.steps[t]
        if episode.actor.iteration < 0 or not step.completion:
            return ""
        world = self._grammars
        renderer = Renderer(self.recipe.student.prompt, world.prompts_of, grammar_of=world.grammar_of)
        told = asked(renderer.whole(without_oldest(episode.history(t), step.dropped)))
        tools = renderer.grammar_of(episode.task).tools
        return told + (f"\n\n[tools]\n{json.dumps(list(tools), indent=2, ensure_ascii=False)}" if tools else "")

    def calls(self, given: Query) -> str:
        """The newest calls that fit."""
        outcomes: dict[str, Outcome] = {one: one for one in OUTCOMES}
        wanted = CallFilter(stage=given.get("stage"), task=given.get("task"), outcome=outcomes.get(given.get("outcome", "")))
        newest = self._calls(wanted, newest=int(given.get("newest", NEWEST)))
        return self._html("step.html.j2", calls=newest[::-1], prompt="", problem="", answer="", episode=True)

    def search(self, text: str) -> list[str]:
        """Keys of the episodes that hold a text, in what was said or in what a teacher said of it, in whatever case."""
        wanted = text.lower()
        found = set[str]()
        for file, _ in self._files():
            with self._lock:
                keys = {one.place: one.key for one in self._source.episodes(file)}
            found |= {keys[place] for place, _ in _holding(file.path, wanted) if place in keys}
            if file.kind == "episodes":
                found |= {line["episode"] for _, line in _holding(self.run.corrections(file.iteration), wanted)}
        return sorted(found)

    # ---- what these share ----------------------------------------------------------------------------------------------

    @cached_property
    def _table(self) -> list[Stage]:
        return stage_table(self.recipe)

    @cached_property
    def _grammars(self) -> Environment:
        """The environment, which need not be made ready to tell its grammars and templates."""
        return self._world or load_environment(self.recipe.environment.name, self.recipe.environment.options)

    def _files(self) -> list[tuple[Played, Shown]]:
        with self._lock:
            self._source.look([])
            report = self._report
            return self._source.files(report.policies if report else (), report.chosen if report else None)

    def _asked(self, given: Query) -> tuple[Played, Episode]:
        """The episode that is asked for, and its file."""
        file, place = next(file for file, shown in self._files() if shown.file == given["file"]), int(given["place"])
        with self._lock:
            if not any(one.place == place for one in self._source.episodes(file)):
                raise LookupError(place)
        return file, read_at(file.path, Episode, place)

    def _corrections(self, file: Played, episode: Episode) -> dict[int, Correction]:
        with self._lock:
            return self._source.corrections(file, [episode])[episode.key]

    def _calls(
        self, wanted: CallFilter, fits: Callable[[Call], bool] = lambda call: True, *, newest: int | None = None
    ) -> list[CallShown]:
        shown = look_at_calls(self.run.calls, lambda calls: [one for one in calls if fits(one)], wanted, newest=newest)
        return [CallShown(call, asked((call.request or {}).get("messages", ())), call.answer) for call in shown]

    def _html(self, template: str, **values: object) -> str:
        return jinja_of().get_template(template).render(**values)

    def _written(self) -> tuple[float, str]:
        """When the run last wrote something, and a key of what its sections are made from."""
        run, i = self.run, range(self.recipe.iterations + 1)
        files = [run.stages, run.manifest.path, *map(run.losses, i), run.calls, run.calls.with_name(f"{run.calls.name}-wal")]
        times = [file.stat().st_mtime for file in files if file.exists()]
        grown = [file.path for file in run.played_files()] + [run.corrections(j) for j in i]
        return max([*times, *(file.stat().st_mtime for file in grown if file.exists())], default=0.0), content_key(times)

    def _live(self, names: Sequence[str], number: int) -> Live:
        stages = [self._under_way(stage) for stage in self._table]
        left = sum(one.state != "done" for one in stages)
        since = words.duration(max(0.0, time.time() - self._written()[0]))
        life = f"{left} of {len(stages)} stages are left; the newest line on file is {since} old."
        return Live(names, number, stages, life if left else "The run is finished.", self.run.calls.exists())

    def _under_way(self, stage: Stage) -> UnderWay:
        """A stage, with how much of it is on file."""
        source, i, done, total, unit = self._source, stage.iteration, 0, 0, "episodes"
        recipe, section = self.recipe, self.recipe.environment
        if stage.kind == "train":
            (done, total), unit = last_step(self.run.losses(i)), "steps"
        elif stage.kind == "correct":
            played = source.index.episodes(self.run.episodes(i))
            done = len(source.index.corrections(self.run.corrections(i), played).of)
            everything = recipe.teacher.episodes == "all"
            total = sum(everything or one.score <= recipe.teacher.failure_score for one in played)
            unit = "episodes corrected"
        else:
            own = [self.run.root / file for file in stage.files]
            below = {*own, *(file.with_suffix(".parts") for file in own)}
            mine = [one.path for one in self.run.played_files() if below & {one.path, *one.path.parents}]
            done = sum(len(source.index.episodes(path)) for path in mine)
            tested = [section.validation_tasks, *(section.test_tasks for _ in section.test)]
            wanted = [section.train_tasks] if stage.kind == "rollout" and i else tested if stage.kind == "evaluate" else [None]
            total = 0 if None in wanted else sum(filter(None, wanted))
        state = "done" if stage.finished(self.run) else "begun" if done or stage.begun(self.run) else "todo"
        return UnderWay(stage.name, state, done, max(total, done) if total else 0, unit)


def _holding(path: Path, wanted: str) -> Iterator[tuple[int, JsonObject]]:
    """The lines of a journal in which a text, in small letters, is part of what was said, with their places."""

    def texts(value: object) -> Iterator[str]:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        yield from [value] if isinstance(value, str) else (text for one in inner for text in texts(one))

    needle, place = json.dumps(wanted, ensure_ascii=False)[1:-1], 0
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n") and needle in line.decode("utf-8", "replace").lower():
                value = json.loads(line)
                if any(wanted in text.lower() for text in texts(value)):
                    yield place, value
            place += len(line)


def _json(value: object) -> Answer:
    return "application/json", json.dumps(value)
