"""How an endpoint is reached. Part of recipes, so nothing heavy is imported here."""

from __future__ import annotations

from pydantic import Field

from leap.config import Section


class EndpointConfig(Section):
    """An OpenAI-compatible endpoint. Part of a recipe, beside the name of the model it serves."""

    base_url: str | None = Field(
        default=None, description="Address up to and with /v1; OpenAI's own if null. vLLM, SGLang, llama.cpp, Ollama, gateways."
    )
    api_key_env: str = Field(
        default="OPENAI_API_KEY",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Name of the environment variable that holds the key. The key itself never stands in a recipe.",
    )
    timeout: float = Field(default=120.0, gt=0, description="Seconds until a call counts as failed and is made again.")
    retries: int = Field(
        default=5, ge=0, description="How often a call is made again after 429, 5xx or a time-out; Retry-After is kept to."
    )
    concurrency: int = Field(default=16, ge=1, description="Calls under way at once.")
