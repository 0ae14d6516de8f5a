"""Learning without a script or another model: the support desk of `leap init`, by a student from random weights.

    python benchmarks/no_script.py FOLDER --seed 0     # log: benchmarks/no_script.log
    python benchmarks/no_script.py FOLDER --seed 0 --teacher hindsight --student hf/GGUF --tickets 100 --steps 40

pi_0 is cloned from 60 tickets on which a clerk guessed: it reads records by chance and closes with a fix drawn by chance,
whatever came of it. What is right nobody shows. By search the student finds it by trying its own answers, from the score at the
end. In hindsight it is told of an attempt that closed the same ticket rightly, where it has come upon one, and says what it
would do; from the clerk's lucky tickets it has learnt what such an account is (`demonstrations.in_hindsight`).
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import sys
from pathlib import Path
from typing import Any

import leap
from leap.cli.init import init

HORIZON = 4
TEACHERS = {
    "search": {"kind": "search", "privilege": 0},
    "hindsight": {"kind": "self", "state": "hindsight", "privilege": 50, "episodes": "all"},
}
SCRATCH = {"layers": 2, "width": 64, "heads": 4, "mlp": 192}
MUON = {"optimizer": "muon", "lr": 0.003, "muon_lr": 0.01}
ADAPTER = {"rank": 32, "alpha": 64, "dropout": 0, "targets": "all-linear"}
LORA = {"lr": 1e-3, "max_grad_norm": 1.0, "bf16": "auto", "lora": ADAPTER}


def clerk(seed: int, desk: Any, tickets: int) -> list[dict[str, object]]:
    """Chats of a clerk who guesses."""
    draw, chats = random.Random(seed), []
    for ticket in desk.SupportDesk().tasks("train", limit=tickets, seed=seed):
        said = []
        for _ in range(draw.randint(0, 2)):
            said.append(("read_record", "record", draw.choice(desk.VALUES["record"]), "I read the {} record."))
        said.append(("close_ticket", "fix", draw.choice(desk.VALUES["fix"]), "I try {}."))
        messages = [
            {
                "role": "assistant",
                "content": reason.format(value),
                "tool_calls": [
                    {"type": "function", "function": {"name": name, "arguments": json.dumps({argument: value})}}
                ],
            }
            for name, argument, value, reason in said
        ]
        chats.append({"task": ticket.id, "messages": messages})
    return chats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--teacher", choices=TEACHERS, default="search")
    parser.add_argument("--student", default="scratch", help="scratch, or a pretrained model.")
    parser.add_argument("--tickets", type=int, default=200, help="Tickets per split.")
    parser.add_argument("--steps", type=int, default=200, help="Steps of each training.")
    given = parser.parse_args()
    scratch = given.student == "scratch"
    package = given.folder / "support-desk"
    if not package.exists():
        init(package)
    sys.path.insert(0, str(package))
    desk = importlib.import_module("support_desk")
    leap.environment("support-desk")(desk.SupportDesk)
    tickets, shown = {"tickets": given.tickets}, {"in_hindsight": 50} if given.teacher == "hindsight" else {}
    chats = given.folder / f"clerk-{given.teacher}-{given.seed}.jsonl"
    chats.write_text("".join(json.dumps(chat) + "\n" for chat in clerk(given.seed, desk, 60)))
    recipe = {
        "name": "desk",
        "seed": given.seed,
        "iterations": 2,
        "horizon": HORIZON,
        "environment": {"name": "support-desk", "options": tickets, "validation": "valid", "test": ["test"]},
        "student": {
            "model": given.student,
            "prompt": {"renderer": "dialogue", "instructions": False, "candidates": False},
            "sampling": {"temperature": 0.3, "max_tokens": 60},
        }
        | ({"scratch": SCRATCH, "batch": 64} if scratch else {"batch": 16}),
        "demonstrations": {"from": "file", "path": str(chats), "min_score": 0} | shown,
        "teacher": TEACHERS[given.teacher],
        "training": {"branches": True, "batch_tokens": 2000, "steps": given.steps} | (MUON if scratch else LORA),
    }
    run = leap.run(recipe, run_dir=given.folder / f"{given.teacher}-{given.seed}")
    for one in run.evaluations():
        score = one.overall
        if one.split == "test":
            interval = f"({score.low:.1%} to {score.high:.1%})"
            print(f"seed {given.seed}: {one.policy} on test, n {score.n}: {score.success:.1%} {interval}")


if __name__ == "__main__":
    main()
