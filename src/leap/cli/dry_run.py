"""`leap run --dry-run`: what paid models would be asked, and what that may cost, before anything is spent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from rich.console import Console
from rich.table import Table

from leap.core import Decision, Episode
from leap.demonstrations.config import PlayedConfig
from leap.envs.base import Environment, load_environment
from leap.envs.live import states_along
from leap.models.estimate import Lengths, StageEstimate, estimate, rough_tokens, total_estimate
from leap.models.ledger import check_price
from leap.models.prices import Prices
from leap.policies.base import ExpertPolicy
from leap.policies.rendering import PromptConfig, Renderer
from leap.recipe import Recipe
from leap.rollouts import rollout
from leap.sync import run_sync
from leap.teachers.config import ModelTeacherConfig
from leap.teachers.prompts import TeacherPrompts

SAMPLE = 8
"""So many of the expert's episodes are played to see how long prompts are."""
_JSON = 25  # tokens around each corrected step in a teacher's answer, as counted on answers in the form asked for


def print_estimate(recipe: Recipe) -> None:
    """Prints calls, tokens and USD of each stage, at most; answers that must be asked for again come on top."""
    stages = estimate_recipe(recipe)
    console = Console(width=None if Console().is_terminal else 120)
    if not stages:
        console.print("This recipe asks no paid model: every model of it runs on this machine.")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("stage", "model", "calls", "tokens in", "tokens out", "USD"):
        table.add_column(column, justify="left" if column in ("stage", "model") else "right")
    for stage in (*stages, total_estimate(stages)):
        usd = "price unknown" if stage.usd is None else f"{stage.usd:.2f}"
        table.add_row(
            stage.stage, stage.model, f"{stage.calls:,}", f"{stage.tokens_in:,}", f"{stage.tokens_out:,}", usd
        )
    console.print(table)
    console.print(
        "At most: every episode is taken to last to its horizon and to be corrected. Lengths are guessed from the expert's "
        f"play of {SAMPLE} training tasks, at four characters a token."
    )
    cap = recipe.budget.usd
    total = total_estimate(stages).usd
    if cap is not None and total is not None and total > cap:
        console.print(f"That is more than budget.usd {cap:g}: the run would stop there and go on when it is raised.")


def estimate_recipe(recipe: Recipe) -> list[StageEstimate]:
    """The estimate of each stage that asks a paid model.

    Raises:
        RecipeError: A cap in USD is set and a price is not known, so the run itself would refuse to start.
    """
    teacher, section = recipe.teacher, recipe.environment
    paid = [section.model for section in recipe.models if section.paid]
    if not paid:
        return []
    environment = load_environment(section.name, section.options)
    environment.prepare()
    prices = Prices(recipe.prices)
    for name in paid:
        check_price(name, prices, recipe.budget)  # what the run itself would refuse is refused here
    tasks = len(environment.tasks(section.train, limit=section.train_tasks))
    evaluated = sum(
        len(environment.tasks(split, limit=limit))
        for split, limit in [(section.validation, section.validation_tasks), *((s, section.test_tasks) for s in section.test)]
    )
    validated = len(environment.tasks(section.validation, limit=section.validation_tasks))
    held_out = min(recipe.measures.held_out or 0, validated)
    episodes = _sample(environment, recipe)
    asked = next((section.model for section in teacher.models if section.paid), None)
    played = recipe.demonstrations if isinstance(recipe.demonstrations, PlayedConfig) else None
    annotator = played.annotate if played else None
    demonstrations = min(played.episodes or tasks, len(environment.tasks(section.train))) if played else 0
    baselines = [r.model for r in recipe.baselines.react if r.model in paid]
    if recipe.baselines.teacher_model and asked is not None:
        baselines += [asked] * len({0, teacher.privilege})
    extracted = isinstance(teacher, ModelTeacherConfig) and teacher.state == "extracted"
    log = _mean(rough_tokens(_log(episode)) for episode in episodes)
    return estimate(
        prices=prices,
        iterations=recipe.iterations,
        horizon=recipe.horizon,
        rollout_tasks=tasks,
        evaluation_tasks=evaluated,
        corrected_episodes=tasks if asked else 0,
        teacher=asked,
        annotator=annotator.model if annotator and annotator.paid else None,
        correction=_correction(environment, recipe, episodes) if asked else Lengths(0, 0),
        by=_asked_by(recipe),
        turn=_turn(environment, recipe, episodes),
        evaluation_horizon=recipe.test_horizon,
        baselines=baselines,
        held_out_episodes=held_out if asked else 0,
        extracted_tasks=(tasks * recipe.iterations + held_out) if extracted else 0,
        extraction=Lengths(log + 400, 200),
        annotated_episodes=demonstrations if annotator else 0,
        annotation=Lengths(log + 400, _mean(len(e.steps) for e in episodes) * _JSON),
    )


def _asked_by(recipe: Recipe) -> Literal["trajectory", "step"]:
    return recipe.teacher.by if isinstance(recipe.teacher, ModelTeacherConfig) else "trajectory"


def _sample(environment: Environment, recipe: Recipe) -> list[Episode]:
    episodes: list[Episode] = []
    tasks = environment.tasks(recipe.environment.train, limit=SAMPLE, seed=recipe.seed)
    rollout(
        environment,
        ExpertPolicy(environment),
        tasks,
        horizon=recipe.horizon,
        seed=recipe.seed,
        stream="estimate",
        on_episode=episodes.append,
    )
    return [episode for episode in episodes if episode.steps]


def _correction(environment: Environment, recipe: Recipe, episodes: list[Episode]) -> Lengths:
    """A correcting call on an episode that lasts to the horizon, scaled up from those at hand."""
    prompts = TeacherPrompts(
        recipe.teacher.privilege, None, environment.prompts_of, grammar_of=environment.grammar_of
    )
    asked, answered = [], []
    for episode in episodes:
        state = run_sync(states_along(environment, episode))[0].text
        scale = recipe.horizon / len(episode.steps)
        if _asked_by(recipe) == "trajectory":
            asked.append(rough_tokens(prompts.trajectory(episode, state)) * scale)
        else:
            asked.append(rough_tokens(prompts.step(episode, len(episode.steps) // 2, state)) * scale)
        step = _mean(rough_tokens(step.reason + step.action) + _JSON for step in episode.steps)
        answered.append(step * (recipe.horizon if _asked_by(recipe) == "trajectory" else 1))
    return Lengths(_mean(asked), _mean(answered))


def _turn(environment: Environment, recipe: Recipe, episodes: list[Episode]) -> Lengths:
    """A turn in the middle of an episode that lasts to the horizon."""
    renderer = Renderer(PromptConfig(), environment.prompts_of, grammar_of=environment.grammar_of)
    prompts = [
        rough_tokens(renderer.render(e.history(len(e.steps) // 2))) * recipe.test_horizon / len(e.steps) for e in episodes
    ]
    answers = [
        rough_tokens([environment.grammar_of(episode.task).write(Decision(reason=step.reason, action=step.action))])
        for episode in episodes
        for step in episode.steps
    ]
    return Lengths(_mean(prompts), _mean(answers))


def _log(episode: Episode) -> str:
    return " ".join(f"{step.observation.text} {step.action}" for step in episode.steps)


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0
