"""Text generation behind one asynchronous interface, whether the model is in this process or at an endpoint.

An episode holds one *conversation* with the model. A model in this process waits until every open conversation has asked
and answers them in one batch, keeping each conversation's prefix from step to step; an endpoint answers each at once.
Rollouts are the same code for both.
"""

from __future__ import annotations

import operator
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Protocol

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from leap.config import Section
from leap.core import JsonObject
from leap.core.message import Message, ToolSpec, characters
from leap.envs.thought import split_thought
from leap.errors import KEPT_BACK


class Sampling(Section):
    """How answers are drawn. Part of a recipe, under `student.sampling`."""

    temperature: float = Field(default=0.3, ge=0, description="0 takes the likeliest token; the paper samples at 0.3.")
    max_tokens: int = Field(default=256, ge=1, description="Longest answer, in tokens.")
    max_reason_tokens: int = Field(
        default=192, ge=0, description="Constrained decoding starts the action after so many tokens."
    )


def _is_a_name(name: str | None) -> str | None:
    if name is not None and not (name.isascii() and name.isidentifier()):  # a key, as like as not: it is not shown
        raise PydanticCustomError(KEPT_BACK, "must be the name of an environment variable; the key stands in that variable")
    return name


def without_login(url: str) -> str:
    """An address as messages show it."""
    return re.sub(r"//[^/@]*@", "//", url)


name_of_variable = AfterValidator(_is_a_name)
"""Validates a key of a recipe that names the environment variable in which a secret stands."""


class EndpointConfig(Section):
    """An OpenAI-compatible endpoint. Part of a recipe, beside the name of the model it serves."""

    base_url: str | None = Field(
        default=None, description="Address up to and with /v1; OpenAI's own if null. vLLM, SGLang, llama.cpp, Ollama, gateways."
    )
    api_key_env: Annotated[str, name_of_variable] = Field(
        default="OPENAI_API_KEY",
        description="Name of the environment variable that holds the key. The key itself never stands in a recipe.",
    )
    timeout: float = Field(default=120.0, gt=0, description="Seconds for a whole answer, after which a call is made again.")
    retries: int = Field(
        default=5, ge=0, description="How often a call is made again after 429, 5xx or a time-out; Retry-After is kept to."
    )
    concurrency: int = Field(default=16, ge=1, description="Calls under way at once.")
    tokens: bool = Field(
        default=False,
        exclude_if=operator.not_,
        description="Ask for each answer's tokens as sampled, with their log-probabilities; vLLM gives both.",
    )


Schema = JsonObject
"""A JSON schema."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a model is asked.

    Attributes:
        messages: The prompt.
        seed: Seed of the sampling: same request, same batch, same answer.
        choices: If given, the answer's action can only be one of these (constrained decoding).
        schema: A JSON schema for the answer. Models in this process are held to it where it is of objects, truth values and
            texts, endpoints where they have such a mode; others ignore it, so the caller parses tolerantly.
        tools: Tools that the answer may call. A call stands in the answer's text, in one of the forms that
            `leap.envs.tools.call_in` reads. To a model that knows no tools they are described in words.
        stop: Texts that end the answer before them, as one that begins a turn that is not the model's. At most four, as
            endpoints take no more.
        task, step: What is asked about, for the record alone: the task's id, and a step where it is about one.
        warmer: By how much the temperature is above that of the model's sampling: another answer is wanted than the usual one.
        hot: The temperature is at least this: several different answers are wanted.
        thinking: Whether a model whose chat template knows of thinking is asked to think first; as the template has it if None.
            Endpoints are not told.
        answers: If given, the whole answer is one of these assistant messages, chosen token by token. `hf/` alone honours it.
    """

    messages: Sequence[Message]
    seed: int = 0
    choices: Sequence[str] | None = None
    schema: Schema | None = None
    tools: Sequence[ToolSpec] = ()
    stop: Sequence[str] = ()
    warmer: float = 0.0
    hot: float = 0.0
    task: str = ""
    step: int | None = None
    thinking: bool | None = None
    answers: Sequence[Message] = ()

    def temperature(self, usual: float) -> float:
        """The temperature of the answer; `warmer` raises none above 1."""
        return max(usual, self.hot, min(usual + self.warmer, 1.0))


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer and what it cost.

    Attributes:
        text: The answer; empty where there is none, as where it was cut off within a thought.
        thought: What was thought before it, where that was told.
        prompt_tokens: Tokens of the prompt; also those of tries that failed, where the endpoint billed them.
        completion_tokens: Tokens generated; likewise.
        cached_tokens: How many of the prompt's tokens were reused from earlier prompts instead of computed.
        cache_write_tokens: How many of the prompt's tokens the endpoint put into its cache, where it charges for that.
        cost: What the call cost, in USD; 0 for a model in this process and for an answer from the run's own ledger.
        from_cache: Whether the answer was on file already, so that no model was asked.
        truncated: Whether it ended for want of tokens rather than at its end.
        tokens: The tokens as they were sampled, the one that ends the turn among them; empty where an endpoint gives none.
        logprobs: The natural logarithm of the probability that each of them was drawn with; empty likewise.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cost: float = 0.0
    from_cache: bool = False
    truncated: bool = False
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    thought: str = ""

    @property
    def whole(self) -> str:
        """The answer with the thought before it, as `leap.envs.thought.split_thought` reads it back."""
        thought = self.thought.strip().replace("</think>", "</ think>")
        return f"<think>\n{thought}\n</think>\n\n{self.text.lstrip()}" if thought else self.text

    def before(self, stop: Sequence[str]) -> Completion:
        """The answer up to the first of the texts that end it (`Request.stop`); what a model thinks before it answers holds none.
        An answer that went on behind one says the same as one that ended there."""
        begin = len(self.text) - len(split_thought(self.text).answer)
        end = min((found for one in stop if (found := self.text.find(one, begin)) >= 0), default=None)
        return self if end is None else replace(self, text=self.text[:end], truncated=False)


class Conversation(Protocol):
    """One episode's exchange with a model."""

    async def complete(self, request: Request) -> Completion:
        """Answers a request.

        Returns:
            The answer. Its text may be empty, or end in the middle (`truncated`): both are answers, and both were paid.

        Raises:
            ContextTooLong: The prompt does not fit into the model's context.
            ModelError: The model failed or refused; the message says why. Another call may well work.
            PrerequisiteError: No call can work: no key or a wrong one, no such model, nothing at the address.
        """
        ...


class Model:
    """A language model that can hold many conversations at once. One of your own overrides `complete`, or `conversation`.

    Attributes:
        name: `provider/model`.
        concurrency: How many conversations to hold at once.
        calls_at_once: How many calls may be under way; as many as there are conversations if None.
        constrains: Whether `choices` are honoured.
        in_process: Whether it runs in this process and answers open conversations together, in one batch.
        room: Longest prompt that leaves room for an answer, in tokens; None where it is not known.
        identity: Tells apart models that answer differently under the same name (another endpoint, other weights).
    """

    name: str
    concurrency: int
    calls_at_once: int | None = None
    constrains: bool = False
    in_process: bool = False
    room: int | None = None

    @property
    def identity(self) -> str:
        """What an answer on file must have come from to be this model's."""
        return self.name

    def length(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int:
        """Tokens of a prompt: exact for a model in this process. Others' tokens are not known, so there it is a guess that is
        rather too high: three characters a token."""
        return -(-characters(messages, tools) // 3)

    async def check(self) -> Completion | None:
        """Finds out whether calls can work, before hours of work rely on them; a model in this process has shown it.

        Returns:
            The answer that was paid for to find out; None where nothing was.

        Raises:
            PrerequisiteError: They cannot: a wrong key, no such model, nothing at the address.
        """
        return None

    @asynccontextmanager
    async def conversation(self) -> AsyncIterator[Conversation]:
        """Opens a conversation, closed when the episode ends. A model that is told everything each time answers itself."""
        yield self

    async def complete(self, request: Request) -> Completion:
        """Answers a request, in a conversation of its own; see `Conversation.complete`."""
        if type(self).conversation is Model.conversation:
            raise NotImplementedError(f"{type(self).__name__} overrides neither `complete` nor `conversation`")
        async with self.conversation() as conversation:
            return await conversation.complete(request)

    def unread(self, request: Request, problem: str) -> None:
        """Takes note, for the record, that an answer to a request could not be used, or not all of it; and why."""

    def close(self) -> None:
        """Frees memory, connections and processes."""
