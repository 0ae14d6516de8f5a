"""Whether Harbor and leap say the same of task folders: both run the reference solution and nothing at all in leap's boxes.

    PYTHONPATH=src PYTHON benchmarks/tasks_harbor.py [FOLDER ...]

where PYTHON is a 3.12 with `harbor` and leap's own requirements. Harbor reads the folder with its own models and runs its own
trial with its own oracle and no-op agents; only the box is leap's (`LeapBoxes`), for Harbor's need a container engine or an
account. Its programs are this machine's own, or those of the tar that LEAP_TASKS_BASE names. Prints a line for each folder.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import logging
import os
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from harbor.environments.base import BaseEnvironment, ExecResult
from harbor.environments.capabilities import EnvironmentCapabilities
from harbor.models.task.task import Task
from harbor.models.trial.config import AgentConfig, EnvironmentConfig, TaskConfig, TrialConfig
from harbor.trial.trial import Trial

from leap import registry
from leap_worlds.sandbox import Limits
from leap_worlds.sandbox.base import environment
from leap_worlds.sandbox.namespace.provider import NamespaceProvider
from leap_worlds.tasks.dockerfile import read_dockerfile
from leap_worlds.tasks.env import TasksConfig, TasksEnvironment
from leap_worlds.tasks.files import pack

OURS = Path(__file__).parents[1] / "tests" / "tasks" / "folders"
BASES = {"*": os.environ.get("LEAP_TASKS_BASE", "machine")}
LONGEST = 600.0


class LeapBoxes(BaseEnvironment):
    """Harbor's interface to a box, by leap's namespace sandbox."""

    provider = NamespaceProvider()

    @staticmethod
    def type() -> str:
        return "leap"

    @property
    def capabilities(self) -> EnvironmentCapabilities:
        return EnvironmentCapabilities(disable_internet=True)

    def _validate_definition(self) -> None:
        pass  # `start` says what cannot be built

    async def start(self, force_build: bool) -> None:
        def make() -> None:
            built = read_dockerfile(self.environment_dir, "Dockerfile", BASES, users=True)
            image = self.provider.build(built.recipe)
            self.env, self.cwd = environment(image), self.task_env_config.workdir or built.workdir
            self.box = self.provider.create(image, Limits(memory=2**30, disk=256 * 2**20))

        await asyncio.to_thread(make)
        await self.exec(f"mkdir -p {self.cwd}", cwd="/", user="root")
        await self.ensure_dirs([PurePosixPath(place) for place in self._mount_targets(writable_only=True)])

    async def stop(self, delete: bool) -> None:
        if hasattr(self, "box"):
            await asyncio.to_thread(self.box.close)

    async def exec(
        self,
        command: str,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        timeout_sec: int | None = None,
        user: str | int | None = None,
    ) -> ExecResult:
        who = self._resolve_user(user)
        done = await asyncio.to_thread(
            self.box.exec,
            ["/bin/bash", "-c", command],
            user="" if who is None else str(who),
            cwd=cwd or self.cwd,
            env={**self.env, **(self._merge_env(env) or {})},
            timeout=float(timeout_sec or LONGEST),
        )
        return ExecResult(stdout=done.output.decode(errors="replace"), return_code=done.exit_code)

    async def upload_file(self, source_path: Path | str, target_path: str) -> None:
        self._put(Path(source_path), target_path)

    async def upload_dir(self, source_dir: Path | str, target_dir: str) -> None:
        self._put(Path(source_dir), target_dir)

    def _put(self, source: Path, target: str) -> None:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            pack(tar, source, PurePosixPath(target))
        done = self.box.exec(["/bin/sh", "-c", "tar -C / -xf -"], timeout=60, input=archive.getvalue())
        if done.exit_code:
            raise RuntimeError(done.output.decode(errors="replace"))

    async def download_file(self, source_path: str, target_path: Path | str) -> None:
        done = self.box.exec(["/bin/cat", "--", source_path], timeout=60)
        if done.exit_code:
            raise FileNotFoundError(source_path)
        Path(target_path).parent.mkdir(parents=True, exist_ok=True)
        Path(target_path).write_bytes(done.output)

    async def download_dir(self, source_dir: str, target_dir: Path | str) -> None:
        done = self.box.exec(["/bin/tar", "-C", source_dir, "-cf", "-", "."], timeout=60)
        if done.exit_code:
            raise FileNotFoundError(source_dir)
        with tarfile.open(fileobj=io.BytesIO(done.output)) as tar:
            tar.extractall(target_dir, filter="data")


async def harbor_says(folder: Path, agent: str, trials: Path) -> dict[str, Any]:
    """The rewards of one of Harbor's own agents; in words why there are none."""
    boxes = EnvironmentConfig(import_path=f"{__name__}:LeapBoxes")
    config = TrialConfig(
        task=TaskConfig(path=folder), trials_dir=trials, agent=AgentConfig(name=agent), environment=boxes
    )
    try:
        result = await (await Trial.create(config)).run()
    except Exception as error:  # whatever Harbor refuses, the others go on
        return {"problem": f"{type(error).__name__}: {error}"[:200]}
    if result.verifier_result is None:
        error = result.exception_info
        return {"problem": f"{error.exception_type}: {error.exception_message}"[:200] if error else "no result"}
    return dict(result.verifier_result.rewards or {})


def leap_says(tasks: TasksEnvironment, name: str, *, oracle: bool) -> dict[str, Any]:
    """The rewards of leap's own runs, in the same words."""
    trial = tasks.trial(tasks.folders[name])
    try:
        while not trial.ended:
            if oracle:
                trial.solve()
            trial.finish()
        return dict(trial.total.rewards) or {"problem": trial.total.problem}
    finally:
        trial.close()


def score(rewards: Mapping[str, Any]) -> float:
    """One number of rewards, as leap has it: the one that is called reward, else the mean; 0 where there are none."""
    told = [] if "problem" in rewards else [rewards["reward"]] if "reward" in rewards else list(rewards.values())
    return sum(told) / len(told) if told else 0.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="*", type=Path, default=sorted(OURS.iterdir()))
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    sys.modules.setdefault("tasks_harbor", sys.modules[__name__])
    registry.sandbox("namespace")(NamespaceProvider)
    agreed = 0
    for folder in arguments.folders:
        task = Task(folder)
        line: dict[str, Any] = {"task": folder.name, "schema": task.config.schema_version}
        try:
            values = {"path": folder, "sandbox": "namespace", "bases": BASES, "services": ("left-running",)}
            tasks = TasksEnvironment(TasksConfig.from_values(values, "tasks"))
            for agent in ("oracle", "nop"):
                ours = leap_says(tasks, folder.name, oracle=agent == "oracle")
                with tempfile.TemporaryDirectory() as trials:
                    theirs = asyncio.run(harbor_says(folder, agent, Path(trials)))
                line[agent] = {"leap": ours, "harbor": theirs}
            line["agree"] = all(
                abs(score(line[each]["leap"]) - score(line[each]["harbor"])) < 1e-9 for each in ("oracle", "nop")
            )
            agreed += line["agree"]
        except Exception as error:
            line["problem"] = str(error)
        print(json.dumps(line), flush=True)
    print(json.dumps({"folders": len(arguments.folders), "parsed by Harbor": len(arguments.folders), "agree": agreed}))
    LeapBoxes.provider.close()


if __name__ == "__main__":
    main()
