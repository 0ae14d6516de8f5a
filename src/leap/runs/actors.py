"""Who acts in a run: the students, the teacher and the baselines, made from the recipe when they are first needed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leap.core import Actor, Episode
from leap.envs.base import Environment
from leap.errors import RunError
from leap.files import read_json
from leap.models.base import Completion, Model
from leap.models.ledger import Ledger
from leap.models.providers import open_model
from leap.policies.base import ExpertPolicy, Policy, ScriptedPolicy, TeacherPolicy
from leap.policies.mixed import MixedPolicy
from leap.policies.react import PrivilegedModelPolicy, ReActPolicy
from leap.policies.rendering import PromptConfig, Renderer
from leap.policies.student import ModelPolicy
from leap.recipe import ReActSection, Recipe
from leap.runs.store import RunDirectory
from leap.teachers.base import Teacher
from leap.teachers.expert import ExpertTeacher
from leap.teachers.model import ModelTeacher
from leap.teachers.prompts import PrivilegedRenderer
from leap.teachers.self import SelfTeacher

if TYPE_CHECKING:
    from leap.models.hf import HFModel


class Cast:
    """The actors of one recipe in one run directory.

    Args:
        recipe: Says who acts.
        run: Holds the checkpoints and the ledger.
        environment: Where they act.
    """

    def __init__(self, recipe: Recipe, run: RunDirectory, environment: Environment) -> None:
        self.recipe = recipe
        self.run = run
        self.environment = environment
        self._student: tuple[Path, float, HFModel] | None = None

    @cached_property
    def ledger(self) -> Ledger:
        """Books every call to an endpoint, keeps the budget, and answers what was answered before."""
        return Ledger(self.run.calls, self.recipe.prices, self.recipe.budget)

    def book_checks(self, paid: Iterable[tuple[str, Completion]]) -> None:
        """Books what finding out whether models answer has cost."""
        for name, answer in paid:
            with self.ledger.stage("check"):
                self.ledger.book("", name, answer, latency=0.0)  # no key: it answers no request of a stage

    def costs(self) -> list[dict[str, Any]]:
        """The ledger's sums by stage and model, for the report."""
        return [total.as_dict() for total in self.ledger.totals()] if self.recipe.asks_models else []

    @property
    def base(self) -> str:
        """Checkpoint directory or hub name of the model before any training."""
        name = self.recipe.student.model
        return str(self.run.root / "base") if name == "scratch" else name.removeprefix("hf/")

    @cached_property
    def renderer(self) -> Renderer:
        """What makes every prompt of the student, at rollout and in training: one limit for both, in the student's tokens."""
        from leap.models.checkpoints import load_chat

        student = self.recipe.student
        chat, context = load_chat(self._tokens())
        room = student.longest_prompt(context)
        return Renderer(
            student.prompt,
            self.environment.prompts_of,
            grammar_of=self.environment.grammar_of,
            limit=room,
            length=chat.length,
        )

    def _tokens(self) -> str:
        """A checkpoint with the student's tokens: the base, or any later one where the base is not there any more."""
        trained = (self.run.checkpoint(i) for i in range(self.recipe.iterations + 1))
        later = (str(path) for path in trained if (path / "leap.json").exists())
        return self.base if self.recipe.student.model != "scratch" or Path(self.base).exists() else next(later, self.base)

    @cached_property
    def whole_renderer(self) -> Renderer:
        """The same without a limit."""
        return Renderer(
            self.recipe.student.prompt, self.environment.prompts_of, grammar_of=self.environment.grammar_of
        )

    # ---- students ------------------------------------------------------------------------------------------------

    def checkpoint_key(self, i: int) -> str:
        """Names pi_i by what it was trained on and how."""
        return read_json(self.run.checkpoint(i) / "leap.json")["key"]

    def student_actor(self, i: int) -> Actor:
        """pi_i, for the record."""
        return Actor(name="student", checkpoint=self.checkpoint_key(i), iteration=i)

    def student(self, i: int, temperature: float) -> ModelPolicy:
        """pi_i as a policy."""
        constrained = self.recipe.student.decoding == "constrained"
        return ModelPolicy(self._student_model(i, temperature), self.renderer, self.student_actor(i), constrained=constrained)

    def rollout_policy(self, i: int) -> tuple[Actor, Callable[[], Policy], str]:
        """Who acts in the rollouts of iteration i: its record, how to make it, and its name for people."""
        beta, privilege = self.recipe.rollouts.beta_at(i), self.recipe.rollout_privilege
        if beta >= 1:  # the student takes no part
            teacher = TeacherPolicy(self.environment, privilege)
            return teacher.actor, lambda: teacher, f"the teacher at privilege {privilege}"

        def student() -> ModelPolicy:
            return self.student(i - 1, self.recipe.student.sampling.temperature)

        actor = self.student_actor(i - 1)
        if not beta:
            return actor, student, f"pi_{i - 1}"
        actor = actor.model_copy(update={"name": f"student, teacher-{privilege} with probability {beta:g}"})
        who = f"pi_{i - 1} mixed with the teacher ({beta:.0%} of steps)"
        return actor, lambda: MixedPolicy(student(), TeacherPolicy(self.environment, privilege), beta, actor), who

    def evaluated_student(self, i: int) -> ModelPolicy:
        """pi_i as it is evaluated."""
        student = self.recipe.student
        temperature = student.evaluation_temperature
        return self.student(i, student.sampling.temperature if temperature is None else temperature)

    def _student_model(self, i: int, temperature: float) -> HFModel:
        """The weights of pi_i; they stay loaded until another checkpoint is asked for."""
        from leap.models.hf import HFModel

        student = self.recipe.student
        path = self.run.checkpoint(i)
        if not (path / "leap.json").exists():
            raise RunError(f"{path} is missing; train iteration {i} first.")
        if self._student is None or self._student[:2] != (path, temperature):
            if self._student is not None:
                self._student[2].close()
            sampling = student.sampling.model_copy(update={"temperature": temperature})
            model = HFModel(str(path), sampling, batch=student.batch, dtype=student.dtype)
            self._student = (path, temperature, model)
        return self._student[2]

    # ---- teachers ------------------------------------------------------------------------------------------------

    @cached_property
    def teacher_model(self) -> Model:
        """The model teacher's model. Every call to an endpoint goes through the ledger."""
        section = self.recipe.teacher
        assert section.model is not None  # the recipe saw to it
        return open_model(section.model, section.sampling, endpoint=section.endpoint, ledger=self.ledger)

    def teacher(self, i: int, states: Mapping[str, str] | None = None) -> Teacher:
        """Who corrects the episodes of pi_i.

        Args:
            i: Which student acted; the self teacher is that student.
            states: Privileged states by task key, where the recipe has them extracted.
        """
        section, recipe = self.recipe.teacher, self.recipe
        if section.kind == "expert":
            return ExpertTeacher(self.environment, section.privilege, drop_leaks=section.drop_leaks)
        if section.kind == "model":
            return ModelTeacher(
                self.environment,
                self.teacher_model,
                section.privilege,
                mode=section.by,
                drop_leaks=section.drop_leaks,
                verify=section.verify,
                attempts=section.attempts,
                states=states,
                limit=_least(section.limit, self.teacher_model.room),
                length=self.teacher_model.length,
                seed=recipe.seed,
            )
        student = self._student_model(i, recipe.student.sampling.temperature)
        return SelfTeacher(
            self.environment,
            student,
            self._privileged(recipe.student.prompt, section.privilege),
            drop_leaks=section.drop_leaks,
            verify=section.verify,
            attempts=section.attempts,
            constrained=recipe.student.decoding == "constrained",
            limit=_least(section.limit, student.room),
            length=student.length,
            seed=recipe.seed,
        )

    # ---- demonstrators and baselines ---------------------------------------------------------------------------------

    def demonstrator(self) -> Policy:
        """Who plays D_0: the unprivileged expert, or the privileged teacher where the recipe asks for that."""
        privilege = self.recipe.demonstrations.privilege
        return TeacherPolicy(self.environment, privilege) if privilege else ExpertPolicy(self.environment)

    def baselines(self, demonstrations: Callable[[], list[Episode]]) -> dict[str, tuple[Actor, Callable[[], Policy]]]:
        """By name, who else is evaluated: its record, and how to make it, for nothing is made that has played already.

        Args:
            demonstrations: Episodes that examples are taken from.
        """
        section = self.recipe.baselines
        found: dict[str, tuple[Actor, Callable[[], Policy]]] = {}

        def add(name: str, actor: str, make: Callable[[Actor], Policy]) -> None:
            record = Actor(name=actor)
            found[name] = (record, lambda: make(record))

        tutor = self.environment.tutor
        if tutor is not None and tutor.plays:
            add("expert", "expert", lambda actor: ExpertPolicy(self.environment))
        found |= self.idle_baselines()
        levels = (0, self.recipe.teacher.privilege, 100) if tutor is not None and tutor.corrects else ()
        for level in dict.fromkeys(levels):
            add(f"teacher-{level}", f"teacher-{level}", lambda actor, level=level: TeacherPolicy(self.environment, level))
        if section.teacher_model:
            for level in dict.fromkeys((0, self.recipe.teacher.privilege)):
                name = f"{self.recipe.teacher.model}-{level}"
                add(folder_name(name), name, lambda actor, level=level: self._acting_teacher(level, actor))
        for react in section.react:
            name = f"react-{react.model}"
            add(folder_name(name), name, lambda actor, react=react: self._react(react, actor, demonstrations()))
        return found

    @property
    def teacher_acting(self) -> str:
        """Name of the baseline in which the teacher's own actions are executed; a model's is there only where the recipe
        has `baselines.teacher_model`, and the self teacher has none."""
        section = self.recipe.teacher
        by = {"expert": "teacher", "model": section.model or "", "self": "self"}[section.kind]
        return folder_name(f"{by}-{section.privilege}")

    def idle_baselines(self) -> dict[str, tuple[Actor, Callable[[], Policy]]]:
        """By name, those who do nothing for their tasks, where the environment has such."""
        tutor = self.environment.tutor
        return {
            name: (Actor(name=name), lambda name=name, actions=actions: ScriptedPolicy(name, actions))
            for name, actions in (tutor.idle.items() if tutor is not None else ())
        }

    def _privileged(self, prompt: PromptConfig, privilege: int) -> PrivilegedRenderer:
        return PrivilegedRenderer(
            prompt, privilege, self.environment.prompts_of, grammar_of=self.environment.grammar_of
        )

    def _acting_teacher(self, privilege: int, actor: Actor) -> Policy:
        prompt = PromptConfig(renderer="paper")  # a model of the field needs the rules and the candidates
        renderer = self._privileged(prompt, privilege)
        model = self.teacher_model
        limit = _least(self.recipe.teacher.limit, model.room)
        return PrivilegedModelPolicy(model, renderer, actor=actor, limit=limit, length=model.length)

    def _react(self, react: ReActSection, actor: Actor, demonstrations: list[Episode]) -> Policy:
        model = open_model(react.model, react.sampling, endpoint=react.endpoint, ledger=self.ledger)
        return ReActPolicy(
            model,
            demonstrations,
            prompts=self.environment.prompts_of,
            grammar_of=self.environment.grammar_of,
            examples=react.examples,
            seed=self.recipe.seed,
            actor=actor,
            limit=_least(react.limit, model.room),
            length=model.length,
        )

    def close(self) -> None:
        """Frees weights, connections and servers."""
        if self._student is not None:
            self._student[2].close()
            self._student = None
        if "teacher_model" in self.__dict__:
            self.teacher_model.close()
        if "ledger" in self.__dict__:
            self.ledger.close()


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def folder_name(name: str) -> str:
    """The name of a baseline's folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)
