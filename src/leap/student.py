"""A student without a run around it: a checkpoint that plays, gives training rows and is trained. For scripts of one's own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict, Unpack

from leap.core import Actor, Correction, Episode
from leap.datasets import Row, correction_rows, demonstration_rows
from leap.envs.base import Environment
from leap.models.base import Sampling
from leap.policies.base import ExpertPolicy, Policy
from leap.policies.rendering import PromptConfig, Renderer
from leap.sync import run_sync
from leap.teachers.base import TeacherContext
from leap.teachers.function import TeacherFunction, teacher_class


class _How(TypedDict, total=False):
    prompt: Mapping[str, object] | None
    sampling: Mapping[str, object] | None
    decoding: Literal["free", "constrained"]


class Student:
    """A language model in one environment.

    Args:
        checkpoint: A checkpoint's folder, or a name on the Hugging Face Hub.
        environment: Where it acts.
        prompt: How it is asked: keys of a recipe's section `student.prompt`.
        sampling: How its answers are drawn: keys of `student.sampling`.
        decoding: Whether only admissible actions can be generated.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        environment: Environment,
        *,
        prompt: Mapping[str, object] | None = None,
        sampling: Mapping[str, object] | None = None,
        decoding: Literal["free", "constrained"] = "free",
    ) -> None:
        self.checkpoint = Path(checkpoint)
        self.environment = environment
        self.prompt = PromptConfig.model_validate(prompt or {})
        self.sampling = Sampling.model_validate(sampling or {})
        self.decoding: Literal["free", "constrained"] = decoding
        # h_t -> messages. A renderer takes a History, which has no field for the privileged state.
        self.renderer = Renderer(self.prompt, environment.prompts_of, grammar_of=environment.grammar_of)

    @classmethod
    def scratch(
        cls,
        folder: Path,
        environment: Environment,
        episodes: Iterable[Episode],
        *,
        size: Mapping[str, object],
        seed: int = 0,
        **how: Unpack[_How],
    ) -> Student:
        """Makes a student from random weights.

        Args:
            folder: Where to leave its checkpoint.
            environment: Where it acts.
            episodes: Its tokenizer knows the words of these.
            size: Keys of a recipe's section `student.scratch`.
            seed: Of the weights.
            **how: The other arguments of a student.
        """
        from leap.models.scratch import ScratchConfig, build_scratch

        student = cls(folder, environment, **how)
        texts = [*(text for row in student.rows(episodes) for text in row.texts()), *environment.vocabulary()]
        build_scratch(ScratchConfig.model_validate(size), texts, folder, seed=seed, names=environment.names())
        return student

    def at(self, checkpoint: str | Path) -> Student:
        """Returns the same student with other weights."""
        prompt, sampling = self.prompt.model_dump(), self.sampling.model_dump()
        return Student(checkpoint, self.environment, prompt=prompt, sampling=sampling, decoding=self.decoding)

    def policy(self, *, temperature: float | None = None, batch: int = 64) -> Policy:
        """Returns the student as a policy.

        Args:
            temperature: Of its sampling; as the student's own by default.
            batch: Episodes played at once.
        """
        from leap.models.hf import HFModel
        from leap.policies.model import ModelPolicy

        changed = {} if temperature is None else {"temperature": temperature}
        model = HFModel(str(self.checkpoint), self.sampling.model_copy(update=changed), batch=batch)
        actor = Actor(name="student", checkpoint=str(self.checkpoint))
        return ModelPolicy(model, self.renderer, actor, constrained=self.decoding == "constrained")

    def rows(self, episodes: Iterable[Episode], corrections: Sequence[Correction] | None = None) -> list[Row]:
        """Returns training rows: of every step of demonstrations, or of corrected steps where corrections are given."""
        if corrections is None:
            return list(demonstration_rows(episodes, self.renderer))
        by_key = {episode.key: episode for episode in episodes}
        return list(correction_rows(by_key, corrections, self.renderer, iteration=1))

    def train(self, rows: Sequence[Row], out: Path, *, seed: int = 0, **settings: object) -> Student:
        """Fine-tunes the student on rows by SFT and returns it with its new weights.

        Args:
            rows: Rows of one episode stand together.
            out: Where to leave the checkpoint.
            seed: Of the rows' order.
            **settings: Keys of a recipe's section `training` with `method: sft`.
        """
        from leap.models.precision import bf16_pays
        from leap.training.config import SFTConfig
        from leap.training.method import Job
        from leap.training.sft import train_sft

        config = SFTConfig.from_values(settings, "the settings of the training").settled(
            lambda: bf16_pays(str(self.checkpoint))
        )
        with tempfile.TemporaryDirectory() as work:
            train_sft(config, rows, Job(0, str(self.checkpoint), out, Path(work), seed))
        return self.at(out)


def expert(environment: Environment) -> Policy:
    """Returns the unprivileged expert of an environment's tutor, as a policy.

    Raises:
        PrerequisiteError: The environment has none.
    """
    return ExpertPolicy(environment)


def correct(
    environment: Environment, episodes: Sequence[Episode], teacher: str | TeacherFunction = "expert", **options: object
) -> list[Correction]:
    """Has a teacher correct every step of some episodes and returns the corrections, rejected ones included.

    Args:
        environment: Where the episodes were played.
        episodes: What to correct.
        teacher: A registered teacher's name, or a function; by default the environment's own tutor.
        **options: The teacher's options, such as `privilege=50`.

    Raises:
        LeapError: An episode cannot be replayed, or the teacher cannot be had.
    """
    kind = teacher_class(teacher)
    made = kind(kind.Config.model_validate(options), TeacherContext(environment))
    found: dict[str, list[Correction]] = {}
    run_sync(made.correct_all(episodes, lambda episode, corrections: found.__setitem__(episode.key, corrections)))
    return [correction for episode in episodes for correction in found.get(episode.key, ())]
