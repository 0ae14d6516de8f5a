"""What a recipe needs, looked for before any work is done: data, packages, checkpoints, keys, endpoints and their models.

A key that turns out to be wrong when the teacher's turn comes has cost hours by then. All that is missing is told at once,
one line each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

from leap import registry
from leap.envs.base import Environment, listed, load_environment
from leap.errors import LeapError, PrerequisiteError, RecipeError
from leap.models.base import Completion
from leap.models.metered import check_price
from leap.models.prices import Prices
from leap.models.providers import Ask, ModelConfig
from leap.progress import Progress
from leap.recipe import Recipe
from leap.sync import run_sync
from leap.training.method import method_of

T = TypeVar("T")


class Ready(NamedTuple):
    """What looking for everything has left behind.

    Attributes:
        environment: The recipe's, its data made ready; None where nothing was looked for.
        paid: Answers of one token that endpoints without a list of models were asked for, by `provider/model`. The run
            books them when it opens; of a run that cannot start there is no ledger to book them in.
    """

    environment: Environment | None = None
    paid: Sequence[tuple[str, Completion]] = ()


def check_prerequisites(recipe: Recipe, progress: Progress) -> Ready:
    """Looks for everything that a recipe needs.

    Raises:
        LeapError: The one thing that is missing.
        PrerequisiteError: The several things that are, a line each.
    """
    problems: dict[str, LeapError] = {}  # each is told once
    paid: list[tuple[str, Completion]] = []

    def found(check: Callable[[], T]) -> T | None:
        try:
            return check()
        except LeapError as problem:
            problems.setdefault(str(problem), problem)
            return None

    environment = found(lambda: prepared_environment(recipe, progress))
    lacking = {str(problem): problem for problem in unmet(recipe)}
    problems |= lacking
    if not lacking and not recipe.student.from_scratch:
        found(partial(_unpack, recipe.student.base, progress))
    checks = [(section.model, found(partial(_check_model, section, recipe))) for section in recipe.models]
    asked = [(name, ask) for name, ask in checks if ask is not None]
    for (name, _), answer in zip(asked, run_sync(_answers(ask for _, ask in asked)), strict=True):
        if isinstance(answer, LeapError):
            problems.setdefault(str(answer), answer)
        elif isinstance(answer, BaseException):
            raise answer
        elif answer is not None:
            paid.append((name, answer))
    if len(problems) == 1:
        raise next(iter(problems.values()))
    if problems:
        raise PrerequisiteError("\n".join(["this recipe cannot run yet:", *(f"  - {problem}" for problem in problems)]))
    return Ready(environment, paid)


async def _answers(asked: Iterable[Ask]) -> list[Completion | BaseException | None]:
    """What endpoints say, all asked at once: nothing, an answer that was paid for, or an error."""
    return await asyncio.gather(*(ask() for ask in asked), return_exceptions=True)


def prepared_environment(recipe: Recipe, progress: Progress) -> Environment:
    """A recipe's environment, its data made ready.

    Raises:
        RecipeError: A split that may only be tested on is used for training or for choosing models, or tasks are in both.
        PrerequisiteError: Data is missing.
    """
    section = recipe.environment
    environment = load_environment(section.name, section.options)
    for use, split in (("training", section.train), ("validation", section.validation)):
        if split in environment.test_splits:
            raise RecipeError(f"{use} on split {split!r}: that is a test split of {section.name}; choose another.")
    demonstrations = recipe.demonstrations
    registry.demonstration.get(demonstrations.source)(demonstrations, environment, section.train).check()
    if recipe.iterations and (lacking := recipe.teacher.lacks(environment)):
        raise PrerequisiteError(lacking)
    with progress.stage("prepare tasks", notes=True) as bar:
        environment.prepare(bar.update)
    trained_on = {task.id for task in listed(environment, section.train)}
    for split in (section.validation, *section.test):
        both = trained_on & {task.id for task in listed(environment, split)}
        if both:
            raise RecipeError(
                f"{len(both)} tasks of split {split!r} are also in the training split {section.train!r} (for example "
                f"{min(both)!r}); nothing may be measured on tasks that were trained on. An id names one task in all splits."
            )
    return environment


def unmet(recipe: Recipe) -> Iterator[LeapError]:
    """What a recipe lacks on this machine, beside its environment's data and what paid endpoints would say: none of these is
    asked."""
    yield from map(PrerequisiteError, _packages(recipe))
    if find_spec("transformers"):
        try:
            _check_student(recipe)
            method_of(recipe.training).check(recipe)
            registry.executor.get(recipe.executor.kind)(recipe.executor).check(recipe)
        except LeapError as problem:
            yield problem


def _packages(recipe: Recipe) -> Iterator[str]:
    training = recipe.training
    needed = ["torch", "transformers", "accelerate", "tokenizers", "safetensors", *method_of(training).packages]
    if training.lora is not None:
        needed.append("peft")
    if missing := [name for name in needed if find_spec(name) is None]:
        yield f"training needs {', '.join(missing)}: pip install 'leap-agents[train]'"
    yield from training.missing()


def _check_student(recipe: Recipe) -> None:
    student = recipe.student
    if student.from_scratch:
        longest = student.longest_prompt(student.scratch.max_tokens)
    else:
        from leap.models.checking import check_adaptable, check_checkpoint
        from leap.models.checkpoints import adapter_config, load_chat

        merges = student.engine.kind == "hf" and (recipe.iterations > 0 or not recipe.demonstrations.none)
        longest = student.longest_prompt(check_checkpoint(student.base, merges=merges))
        if student.prompt.thinking != "off" and not load_chat(student.base)[0].knows_thoughts:
            raise PrerequisiteError(
                f"student.prompt.thinking: the chat template of {student.base} knows of no thinking; leave it off."
            )
        lora, adapter = recipe.training.lora, adapter_config(student.base)
        if lora is not None and lora.targets:
            check_adaptable(student.base, lora.targets)
        if adapter is not None and (lora is None or lora.rank != adapter["r"]):
            advice = f"set training.lora.rank: {adapter['r']}, or merge it into its base first"
            raise PrerequisiteError(
                f"the student {student.base} is a LoRA adapter of rank {adapter['r']}, which goes on: {advice}."
            )
    if student.engine.kind != "hf":
        _check_engine(recipe, longest + student.sampling.max_tokens)


def _check_engine(recipe: Recipe, needed: int) -> None:
    """Looks for the student's engine; a server that runs is asked for what the run will ask it for. `needed` are the tokens of
    the longest prompt and its answer."""
    student, lora, config = recipe.student, recipe.training.lora, recipe.student.engine
    if find_spec("openai") is None:
        raise PrerequisiteError("student.engine needs the openai client: pip install 'leap-agents[endpoints]'")
    from leap.models.served import Engine, short_context
    from leap.models.vllm import RANKS, vllm_program

    if lora is not None and lora.rank > RANKS[-1]:
        raise PrerequisiteError(f"training.lora.rank: engines take adapters of rank {RANKS[-1]} at most, not {lora.rank}.")
    if config.started:
        vllm_program("student.engine: vllm", "kind: hf", "at its base_url")
        if (context := config.options.get("max_model_len", needed)) < needed:
            raise PrerequisiteError(short_context(context, needed))
    elif lora is None and (recipe.iterations or not recipe.demonstrations.none):
        raise PrerequisiteError(
            f"student.engine: all weights are trained, and the server at {config.address} cannot be started again with them. "
            "Set training.lora, or leave base_url out so that leap starts a server."
        )
    elif student.from_scratch:
        raise PrerequisiteError(f"student.engine: the server at {config.address} cannot know a student from random weights.")
    else:
        from leap.models.gguf import unpacked

        base = unpacked(student.base)
        engine = Engine(config, base, **recipe.engine_settings())
        with TemporaryDirectory(prefix=".leap-adapter-", dir=Path.cwd()) as folder:
            if lora is not None:
                from leap.training.student import untrained_adapter

                untrained_adapter(base, lora, Path(folder))
            engine.check(needed, base if lora is None else folder)


def _unpack(base: str, progress: Progress) -> None:
    """Unpacks a student that is a GGUF file, if that has not been done."""
    from leap.models.gguf import folder_of, gguf_file, unpacked

    if (file := gguf_file(base)) is not None and not folder_of(file).exists():
        with progress.stage(f"unpack {file.name}", notes=True):
            unpacked(base)


def _check_model(section: ModelConfig, recipe: Recipe) -> Ask | None:
    """Checks a model that takes part beside the student; what is still to be asked of its endpoint."""
    if section.paid:
        check_price(section.model, Prices(recipe.prices), recipe.budget)
    return section.check()
