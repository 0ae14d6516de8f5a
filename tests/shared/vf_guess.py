"""A taskset of verifiers with several turns: a number to guess, hidden in the trace's info; the taskset's code answers."""

from __future__ import annotations

from collections.abc import Iterator

import verifiers.v1 as vf


class Guess(vf.Task[vf.TaskData, vf.State, vf.TaskConfig]):
    """A number from 0 to 9."""


class Guesses(vf.Taskset[Guess, vf.TasksetConfig]):
    """Numbers without end."""

    INFINITE = True

    def load(self) -> Iterator[Guess]:
        n = 0
        while True:
            yield Guess(vf.TaskData(name=f"number-{n}", description="Guess a number from 0 to 9."), self.config.task)
            n += 1


class GuessConfig(vf.EnvConfig):
    """Who guesses."""

    player: vf.AgentConfig = vf.AgentConfig()


class GuessEnv(vf.Env[GuessConfig]):
    """Says whether a guess is too small; a word that is no number is an error of this code."""

    async def run(self, task: Guess, agents: vf.Agents) -> None:
        number = int(task.data.name.rpartition("-")[2]) * 3 % 10
        async with agents.player.interaction(task) as interaction:
            interaction.trace.info["number"] = number
            said = "What is the number?"
            for turn in range(4):
                segment = await interaction.turn(said)
                if segment.terminated:
                    break
                guess = int(segment.last_reply)
                if guess == number:
                    interaction.trace.record_reward("found", 1.0 - turn / 8)
                    break
                said = "It is larger." if guess < number else "It is smaller."


__all__ = ["GuessEnv", "Guesses"]
