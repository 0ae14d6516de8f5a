"""Logs of Inspect AI (https://inspect.aisi.org.uk), written by its own models. An episode is a sample, a policy a log."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalError,
    EvalLog,
    EvalMetric,
    EvalResults,
    EvalSample,
    EvalSampleLimit,
    EvalScore,
    EvalSpec,
    EvalStats,
    write_eval_log,
)
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageTool,
    ChatMessageUser,
    ContentReasoning,
    ContentText,
    ModelOutput,
    ModelUsage,
)
from inspect_ai.scorer import Score
from inspect_ai.tool import ToolCall

from leap import __version__
from leap.core import Episode, StopReason, content_key
from leap.core.record import JsonObject
from leap.evaluation import score_episodes


def write_log(path: Path, environment: str, policy: str, told: Sequence[tuple[Episode, JsonObject]]) -> None:
    """Writes the log of a policy.

    Args:
        path: The file, `*.eval`.
        environment: The environment's name.
        policy: The policy's.
        told: Its episodes, each with what may be shared of it as a trajectory (`leap.envs.atif`).
    """
    often = Counter[str]()
    samples = []
    for episode, trajectory in told:
        name = f"{episode.task.split}/{episode.task.id.removeprefix(f'{episode.task.split}/')}"
        often[name] += 1  # a task may be played more than once
        samples.append(_sample(name, often[name], f"leap/{policy}", episode, trajectory))
    by_split: dict[str, list[Episode]] = defaultdict(list)
    for episode, _ in told:
        by_split[episode.task.split].append(episode)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    key = content_key("inspect", environment, policy, [episode.key for episode, _ in told])[:22]
    write_eval_log(
        EvalLog(
            status="success",
            eval=EvalSpec(
                eval_id=key,
                run_id=key,
                task_id=key,
                created=now,
                task=environment,
                dataset=EvalDataset(name=environment, samples=len(often), sample_ids=list(often)),
                model=f"leap/{policy}",
                config=EvalConfig(),
                packages={"leap-agents": __version__},
            ),
            results=EvalResults(
                total_samples=len(samples),
                completed_samples=sum(not episode.stop.untold for episode, _ in told),
                scores=_scores(by_split),
            ),
            stats=EvalStats(started_at=now, completed_at=now),
            samples=samples,
        ),
        str(path),
    )


def _scores(by_split: dict[str, list[Episode]]) -> list[EvalScore]:
    """Success and mean score, a metric for each split: they are never mixed."""
    found = {split: score_episodes(episodes) for split, episodes in by_split.items()}

    def scorer(name: str, **columns: str) -> EvalScore:
        metrics = {
            split: EvalMetric(
                name=split,
                value=getattr(one, name),
                metadata={"n": one.n} | {shown: getattr(one, field) for shown, field in columns.items()},
            )
            for split, one in found.items()
        }
        return EvalScore(name=name, scorer=name, metrics=metrics)

    return [scorer("success", low="low", high="high"), scorer("score", ci="score_ci")]


def _sample(name: str, epoch: int, model: str, episode: Episode, trajectory: JsonObject) -> EvalSample:
    messages = _messages(trajectory)
    prompt, said = (sum(getattr(step, f"{kind}_tokens") for step in episode.steps) for kind in ("prompt", "completion"))
    usage = ModelUsage(input_tokens=prompt, output_tokens=said, total_tokens=prompt + said)
    last = next((one for one in reversed(messages) if isinstance(one, ChatMessageAssistant)), None)
    error = EvalError(message=episode.stop.value, traceback="", traceback_ansi="") if episode.stop.untold else None
    limit = EvalSampleLimit(type="turn", limit=episode.horizon) if episode.stop is StopReason.HORIZON else None
    more = {"corrections": taught} if (taught := _corrections(trajectory)) else {}
    return EvalSample(
        id=name,
        epoch=epoch,
        input=messages[:1],
        target="",  # a solution is nothing to share
        messages=messages,
        output=ModelOutput.from_content(model, last.text if last else ""),
        scores={
            "success": Score(value=float(episode.success)),
            "score": Score(value=episode.score, metadata=dict(episode.parts)),
        },
        metadata={
            "key": episode.key,
            "split": episode.task.split,
            "kind": episode.task.kind,
            "stop": episode.stop.value,
            "steps": len(episode.steps),
            "horizon": episode.horizon,
            "actor": episode.actor.model_dump(),
            **more,
        },
        model_usage={model: usage} if prompt or said else {},
        total_time=episode.seconds,
        error=error,
        limit=limit,
    )


def _corrections(trajectory: JsonObject) -> dict[int, Any]:
    """By step, who corrected it and whether the correction trains."""
    steps = (step["extra"]["leap"] for step in trajectory["steps"][1:])
    return {t: step["correction"] for t, step in enumerate(steps) if "correction" in step}


def _messages(trajectory: JsonObject) -> list[ChatMessage]:
    """A trajectory as a chat: each action is a call of a tool."""
    first, *steps = trajectory["steps"]
    told = [first["message"], *(one["content"] for one in first.get("observation", {"results": ()})["results"])]
    messages: list[ChatMessage] = [ChatMessageUser(content="\n\n".join(told))]
    for step in steps:
        reason = step.get("reasoning_content", "") if not step["message"] else ""  # an answer as generated has its reason
        said = [ContentReasoning(reasoning=reason)] if reason else []
        calls = [
            ToolCall(id=call["tool_call_id"], function=call["function_name"], arguments=call["arguments"])
            for call in step["tool_calls"]
        ]
        messages.append(
            ChatMessageAssistant(content=[*said, ContentText(text=step["message"])], tool_calls=calls, source="generate")
        )
        for call, result in zip(calls, step["observation"]["results"], strict=True):
            messages.append(ChatMessageTool(content=result["content"], tool_call_id=call.id, function=call.function))
    return messages
