"""A teacher that Ray Serve really serves, by an application that speaks OpenAI's protocol in place of vLLM's. As a program it is
a driver that has that teacher play: stand_in_served.py RECIPE RUN LOG."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from leap.testing.corridor import EAST


def application(log: Path, pause: float = 0.0, broken: str = "") -> Any:
    """What makes the application of a model's name and settings.

    Args:
        log: Gets a line for each answer: the replica's process, and a hash of what was asked.
        pause: Seconds that an answer takes.
        broken: What replicas say instead of starting.
    """
    says = f"REASON: on we go\nACTION: {EAST}"

    def made(name: str, settings: Any) -> Any:
        from ray import serve

        # Within a function, so that it is sent as it is: replicas do not find this module.
        @serve.deployment(num_replicas=settings.replicas, ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=20)
        class Replica:
            def __init__(self) -> None:
                if broken:
                    raise ValueError(broken)

            async def __call__(self, request: Any) -> Any:
                import asyncio
                import hashlib

                from starlette.responses import JSONResponse

                if request.url.path.endswith("/models"):
                    return JSONResponse({"object": "list", "data": [{"id": name, "object": "model"}]})
                body, asked = await request.body(), await request.json()
                await asyncio.sleep(pause)
                with log.open("a") as lines:
                    lines.write(f"{os.getpid()} {hashlib.sha256(body).hexdigest()}\n")
                message = {"role": "assistant", "content": says}
                told = {"id": "1", "object": "chat.completion", "created": 0, "model": asked["model"]}
                told["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
                told["usage"] = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
                return JSONResponse(told)

        return Replica.bind()

    return made


def main(recipe: Path, run: Path, log: Path) -> None:
    """Has the teacher play its baselines."""
    import killed_runs  # noqa: F401 - registers the world

    from leap.recipe import load_recipe
    from leap.runs import ray_serving
    from leap.runs.open import check_run, open_run
    from leap.runs.policies import baselines_of

    ray_serving.application = application(log, pause=0.2)
    ray_serving.check_serving = lambda name: None  # there is no vLLM here
    read = load_recipe(recipe)
    with open_run(run, read, check_run(run, read)) as stages:
        for spec in baselines_of(read, stages.environment):
            if spec.kind == "model":
                stages.baseline(spec)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
