"""Who acts in a run: students, teachers and baselines, made from the recipe when they are first needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from leap import registry
from leap.core import Actor, Episode, content_key
from leap.demonstrations.sources import AnnotatorConfig, Source
from leap.envs.base import Environment
from leap.errors import RunError
from leap.files import Journal, read_json
from leap.models.base import EndpointConfig, Model
from leap.models.checkpoints import best_device, look_in, model_identity, release_memory
from leap.models.gguf import unpacked
from leap.models.ledger import Ledger
from leap.models.metered import Booking, MeteredModel, NotedModel
from leap.models.precision import bf16_pays
from leap.models.prices import dollars
from leap.models.providers import ModelConfig, open_model
from leap.policies.base import ExpertPolicy, MixedPolicy, Policy, ScriptedPolicy, TeacherPolicy
from leap.policies.model import ModelPolicy
from leap.policies.react import ReActRenderer
from leap.policies.rendering import PromptConfig, Renderer
from leap.recipe import ReActSection, Recipe
from leap.runs.directory import RunDirectory, marker
from leap.runs.policies import PolicySpec
from leap.teachers.asking import shorter
from leap.teachers.base import StudentContext, Teacher, TeacherContext
from leap.teachers.config import ModelTeacherConfig
from leap.teachers.function import teacher_class
from leap.teachers.onfile import Annotation, ExtractedState, ReasonAnnotator, StateExtractor
from leap.teachers.prompts import PrivilegedRenderer

if TYPE_CHECKING:
    from leap.models.served import Engine
    from leap.models.vllm import Served


OpenStudent = Callable[[int, str, float], Model]
"""Opens pi_i, whose checkpoint is at a path, at a temperature."""


class Acting(NamedTuple):
    """A policy's actor, for the record, and what makes its policy: weights are loaded only if something is to be played."""

    actor: Actor
    policy: Callable[[], Policy]


class Actors:
    """The actors of a recipe in an environment; the run directory holds their checkpoints and the ledger.

    Args:
        recipe: The recipe.
        run: The run directory.
        environment: Where they act.
        ledger: In a worker, which may not write the run's ledger, the way to it.

    Attributes:
        open_student: Opens the student where something else than this process generates for it.
        served: Tells where the teacher is that is served with the run (`teacher.serve`), started if need be.
    """

    def __init__(
        self, recipe: Recipe, run: RunDirectory, environment: Environment, *, ledger: Booking | None = None
    ) -> None:
        self._booking = ledger
        self.open_student: OpenStudent | None = None
        self.served: Callable[[], Served] | None = None
        self.recipe = recipe
        self.run = run
        self.environment = environment
        self._student: tuple[str, float, Model] | None = None
        self._engine: Engine | None = None
        self._models: dict[str, Model] = {}  # by what they were opened with
        self._opened = ExitStack()

    def close(self) -> None:
        """Frees weights, connections and servers."""
        self._close_student()
        if self._engine is not None:
            self._engine.close()
        self._models.clear()
        self._opened.close()

    def free_student(self) -> None:
        """Frees what generates for the student, as before a training, which loads its own weights."""
        self._close_student()
        if self._engine is not None:
            self._engine.rest()

    def _close_student(self) -> None:
        if self._student is not None:
            self._student[2].close()
            self._student = None
            release_memory()

    @cached_property
    def ledger(self) -> Ledger:
        """Books every call to an endpoint, keeps the budget, answers what was answered before; keeps other calls to be read."""
        ledger = Ledger(self.run.calls, self.recipe.prices, self.recipe.budget, self.recipe.calls)
        self._opened.callback(ledger.close)
        return ledger

    @property
    def spent(self) -> str:
        """What calls to endpoints have cost so far, for people."""
        usd, tokens = self.ledger.spent
        return dollars(usd) if usd else f"{tokens:,} tokens paid" if tokens else ""

    # ---- policies --------------------------------------------------------------------------------------------------

    def acting(self, spec: PolicySpec) -> Acting:
        """The actor and the policy that a spec names."""
        recipe, i = self.recipe, spec.iteration
        match spec.kind:
            case "demonstrator":
                source = self.demonstrations
                return Acting(source.actor, lambda: source.policy(self.open_model))
            case "rollout":
                return self._rolling_out(i)
            case "student":
                temperature = recipe.student.temperature_at_evaluation
                if spec.privilege is not None:
                    told = Actor(name=f"student-{spec.privilege}", checkpoint=self.checkpoint_key(i), iteration=i)
                    return Acting(told, lambda: self._privileged_student(i, temperature, spec.privilege or 0, told))
                return Acting(self.student_actor(i), lambda: self.student_policy(i, temperature))
            case "expert":
                policy = ExpertPolicy(self.environment)
            case "teacher":
                policy = TeacherPolicy(self.environment, spec.privilege or 0)
            case "idle":
                policy = ScriptedPolicy(spec.name, spec.actions)
            case "model" | "react":
                return Acting(Actor(name=spec.actor), lambda: self._prompted(spec))
        return Acting(policy.actor, lambda: policy)

    @cached_property
    def demonstrations(self) -> Source[Any]:
        """Where D_0 comes from."""
        section = self.recipe.demonstrations
        return registry.demonstration.get(section.source)(section, self.environment, self.recipe.environment.train)

    def pays(self, spec: PolicySpec) -> bool:
        """Whether the policy that a spec names asks a model at an endpoint, through the ledger."""
        if spec.kind == "demonstrator":
            return bool(self.recipe.demonstrations.models)
        return spec.kind in ("model", "react")

    def files(self, spec: PolicySpec) -> list[Path]:
        """What of the run directory the policy that a spec names is made from."""
        student = spec.iteration - (spec.kind == "rollout")
        if spec.kind in ("student", "rollout"):
            return [self.run.base, self.run.checkpoint(student), self.run.precision]
        return [self.run.episodes(0)] if spec.kind == "react" else []

    def _rolling_out(self, i: int) -> Acting:
        """Who acts in the rollouts of iteration i: pi_{i-1}, the environment's teacher, or both in turn."""
        beta, privilege = self.recipe.rollouts.beta_at(i), self.recipe.teacher.privilege
        if beta >= 1:  # the student takes no part
            return self.acting(PolicySpec("teacher", privilege=privilege))

        def student() -> Policy:
            return self.student_policy(i - 1, self.recipe.student.sampling.temperature)

        actor = self.student_actor(i - 1)
        if not beta:
            return Acting(actor, student)
        actor = actor.model_copy(update={"name": f"student, teacher-{privilege} with probability {beta:g}"})
        return Acting(actor, lambda: MixedPolicy(student(), TeacherPolicy(self.environment, privilege), beta, actor))

    def _prompted(self, spec: PolicySpec) -> Policy:
        """A model that plays without fine-tuning: in the ReAct way, or the teacher's as it would act itself."""
        section = spec.react or self.recipe.teacher.models[0]
        model = self.open_model(section)
        if isinstance(section, ReActSection):
            renderer = ReActRenderer(
                list(Journal(self.run.episodes(0), Episode)),
                prompts=self.environment.prompts_of,
                grammar_of=self.environment.grammar_of,
                examples=section.examples,
                seed=self.recipe.seed,
                limit=model.room,
                length=model.length,
            )
        else:  # a model of the field needs the rules and the candidates
            whole = self._renderer(PromptConfig(renderer="paper"))
            limit = shorter(getattr(self.recipe.teacher, "limit", None), model.room)
            renderer = PrivilegedRenderer(whole.limited(limit, model.length), spec.privilege or 0)
        return ModelPolicy(model, renderer, Actor(name=spec.actor), untrained=True)

    # ---- students --------------------------------------------------------------------------------------------------

    @property
    def base(self) -> str:
        """Checkpoint directory or hub name of the model before any training; a GGUF file is unpacked."""
        student = self.recipe.student
        return str(self.run.base) if student.from_scratch else look_in(unpacked(student.base))

    @cached_property
    def base_identity(self) -> str:
        """The recipe's student by what its weights are; `scratch` of one that the run makes."""
        return model_identity(self.recipe.student.model)

    def check_base(self) -> None:
        """Looks whether the base is still the one that the students on file were trained from.

        Raises:
            RunError: There are other files in its folder now, or another revision of it was fetched from the Hub.
        """
        nameless = ("scratch", self.recipe.student.model)  # what is not here has no content to compare
        for i in range(self.recipe.iterations + 1):
            noted = marker(self.run.checkpoint(i))
            before = read_json(noted).get("base", self.base_identity) if noted.exists() else self.base_identity
            if before != self.base_identity and not {before, self.base_identity} & set(nameless):
                raise RunError(
                    f"{self.base} holds another model now than the one that pi_{i} was trained from. Put that one back, or "
                    "start a run of another name."
                )

    @cached_property
    def renderer(self) -> Renderer:
        """What makes every prompt of the student, at rollout and in training: one limit for both, in the student's tokens."""
        from leap.models.checkpoints import load_chat

        chat, context = load_chat(self._tokens())
        length = partial(chat.length, thinking=self.whole_renderer.thinking)
        return self.whole_renderer.limited(self.recipe.student.longest_prompt(context), length)

    def _tokens(self) -> str:
        """A checkpoint with the student's tokens: the base, or any later one where the base is not there any more."""
        trained = (self.run.checkpoint(i) for i in range(self.recipe.iterations + 1))
        later = (str(path) for path in trained if marker(path).exists())
        return self.base if not self.recipe.student.from_scratch or Path(self.base).exists() else next(later, self.base)

    @cached_property
    def whole_renderer(self) -> Renderer:
        """The renderer without a limit on the length of prompts."""
        return self._renderer(self.recipe.student.prompt)

    def _renderer(self, prompt: PromptConfig) -> Renderer:
        return Renderer(prompt, self.environment.prompts_of, grammar_of=self.environment.grammar_of)

    def checkpoint(self, i: int) -> str:
        """Directory or hub name of the weights of pi_i: pi_0 is the base model where there is no D_0.

        Raises:
            RunError: It is not trained yet.
        """
        if i == 0 and self.recipe.demonstrations.none:
            return self.base
        path = self.run.checkpoint(i)
        if not marker(path).exists():
            raise RunError(f"{path} is missing; train iteration {i} first.")
        self.run.manifest.check(path, whole=True)
        return str(path)

    def checkpoint_key(self, i: int) -> str:
        """Key of pi_i, which names it by what it was trained on and how."""
        if i == 0 and self.recipe.demonstrations.none:
            return content_key("base", self.base_identity)
        return read_json(marker(self.run.checkpoint(i)))["key"]

    def student_actor(self, i: int) -> Actor:
        """pi_i for the record, as the recipe's policy has it act."""
        section, actor = self.recipe.policy, self._answering(i)
        actor_of = getattr(registry.policy.get(section.kind), "actor_of", None)
        return actor_of(section, actor) if actor_of else actor

    def _answering(self, i: int) -> Actor:
        return Actor(name="student", checkpoint=self.checkpoint_key(i), iteration=i)

    def student_policy(self, i: int, temperature: float, hot: float = 0.0) -> Policy:
        """pi_i as the recipe's policy has it act, at a temperature of at least `hot`."""
        constrained, section = self.recipe.student.decoding == "constrained", self.recipe.policy
        model = self.student_model(i, temperature)
        student = ModelPolicy(model, self.renderer, self._answering(i), constrained=constrained, hot=hot)
        return registry.policy.get(section.kind)(section, student)

    def _privileged_student(self, i: int, temperature: float, privilege: int, actor: Actor) -> Policy:
        """pi_i with the privileged state in its prompt, to see what it has to teach."""
        renderer = PrivilegedRenderer(self.renderer, privilege)
        constrained = self.recipe.student.decoding == "constrained"
        return ModelPolicy(self.student_model(i, temperature), renderer, actor, constrained=constrained)

    def bf16_pays(self) -> bool:
        """Whether the machine on which the run began is faster in bfloat16; where that was not asked then, this one."""
        size, noted = self.recipe.student.scratch, self.run.precision
        model = (size.width, size.mlp) if self.recipe.student.from_scratch else self.base
        return read_json(noted)["bf16"] if noted.exists() else bf16_pays(model)

    @property
    def _dtype(self) -> str:
        """The weights' type in rollouts: on a CPU that is no faster in bfloat16 never a half one, unless the recipe says so."""
        given, asked = self.recipe.student.dtype, self.run.precision.exists()
        return "float32" if given == "auto" and asked and best_device() == "cpu" and not self.bf16_pays() else given

    def student_model(self, i: int, temperature: float) -> Model:
        """The weights of pi_i; they stay loaded until another checkpoint is asked for."""
        student, path = self.recipe.student, self.checkpoint(i)
        if self._student is None or self._student[:2] != (path, temperature):
            self._close_student()
            sampling = student.sampling.model_copy(update={"temperature": temperature})
            if self.open_student is not None:
                model = self.open_student(i, path, temperature)
            elif student.engine.kind == "hf":
                model = open_model(student.opened_as(path), sampling, batch=student.batch, dtype=self._dtype)
            else:
                from leap.models.served import Engine

                self._engine = self._engine or Engine(student.engine, self.base, **self.recipe.engine_settings())
                model = self._engine.open(path, sampling)
            self._student = (path, temperature, model)
        return self._student[2]

    # ---- teachers --------------------------------------------------------------------------------------------------

    def open_model(self, section: ModelConfig) -> Model:
        """Opens the model that a section names; its calls go to the ledger. It stays open as long as the run does."""
        serve = getattr(section, "serve", None)
        told = (one.model_dump(mode="json") for one in (section.sampling, section.endpoint))
        key = content_key(section.model, *told, *(["served"] if serve else []))
        if key not in self._models:
            ledger = self._booking or self.ledger
            self._models[key] = self._replicas(section, ledger) if serve else section.open(ledger)
            self._opened.callback(self._models[key].close)
        return self._models[key]

    def _replicas(self, section: ModelConfig, ledger: Booking) -> Model:
        """The model of a section that replicas on a cluster serve."""
        from leap.models.vllm import ReplicasModel

        assert self.served is not None
        sampling, endpoint = section.sampling.sampling(), cast(EndpointConfig, section.endpoint)
        model = ReplicasModel(section.model.partition("/")[2], sampling, endpoint, self.served())
        return MeteredModel(model, sampling, ledger)

    def annotator(self, section: AnnotatorConfig) -> ReasonAnnotator:
        """Who writes reasons into demonstrations; what is written stays on file."""
        known = Journal(self.run.annotations(), Annotation)
        model = self.open_model(section)
        return ReasonAnnotator(self.environment, model, known, seed=self.recipe.seed, replace=section.replace)

    def extractor(self, i: int, section: ModelTeacherConfig) -> StateExtractor:
        """Who reads the privileged states of iteration i from logs; what is read stays on file."""
        known, model = Journal(self.run.states(i), ExtractedState), self.open_model(section)
        return StateExtractor(self.environment, model, known, limit=section.limit, seed=self.recipe.seed)

    def teacher(
        self, i: int, states: Mapping[str, str] | None = None, *, episodes: int | None = None
    ) -> Teacher[Any]:
        """Who corrects the episodes of pi_i, so many in all. `states` are the privileged states by task key, where the recipe
        has them extracted."""
        section, student = self.recipe.teacher, self.recipe.student
        context = TeacherContext(
            self.environment,
            seed=self.recipe.seed,
            open_model=self.open_model,
            student=StudentContext(
                lambda: NotedModel(self.student_model(i, student.sampling.temperature), self._booking or self.ledger),
                self.whole_renderer,
                constrained=student.decoding == "constrained",
                policy=partial(self.student_policy, i, student.sampling.temperature),
            ),
            states=states,
            episodes=episodes,
        )
        return teacher_class(section.kind)(section, context)
