"""Rows in tokens, through the one chat path that rollouts use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from leap.datasets import Row
from leap.models.chat import ChatTokens
from leap.training.branches import PackedEpisode, TokenRow, pack


def encode_row(row: Row, chat: ChatTokens) -> TokenRow:
    """A row's prompt and answer as the model sees and gives them at rollout."""
    return TokenRow(chat.prompt(row.prompt, row.tools), chat.completion(row.completion[0], row.prompt, row.tools))


def encode_rows(rows: Iterable[Row], chat: ChatTokens, *, max_tokens: int) -> tuple[list[TokenRow], int]:
    """All rows that are not too long, and how many were."""
    encoded = [encode_row(row, chat) for row in rows]
    kept = [row for row in encoded if len(row.prompt) + len(row.answer) <= max_tokens]
    return kept, len(encoded) - len(kept)


def pack_rows(rows: Sequence[Row], chat: ChatTokens, *, max_tokens: int) -> tuple[list[PackedEpisode], int]:
    """Rows grouped by episode, each group packed as trunk and branches; and how many rows were too long.

    Args:
        rows: Rows of one episode stand together.
        chat: The student's tokens.
        max_tokens: Longest row.
    """
    packed, dropped = [], 0
    for _, group in groupby(rows, key=lambda row: (row.source, row.episode)):
        kept, too_long = encode_rows(group, chat, max_tokens=max_tokens)
        dropped += too_long
        if kept:
            packed.append(pack(kept))
    return packed, dropped
