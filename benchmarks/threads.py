"""Threads of a student beside other programs: seconds of a step, by how it waits and how many threads it has.

    python benchmarks/threads.py [--steps 10] [--most-busy 2] [--checkpoint FOLDER]

A step is forward and backward of a student of the quickstart's size on 2,000 tokens. Of a checkpoint, in bfloat16, it is the same
with LoRA of rank 32 on all linear layers on 1,000 tokens, and in a line of its own the decoding of 16 tokens for 32 rows. Busy
programs count in Python. Each figure is of a process of its own, which measures wall-clock time.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys

STEP = """
import sys, time
import leap
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from leap.models.checkpoints import settle_threads
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(vocab_size=1000, hidden_size=128, intermediate_size=384, num_hidden_layers=3,
    num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=4096))
if sys.argv[2] == "now":
    settle_threads(model)
tokens = torch.randint(0, 1000, (1, 2000))
def step():
    model(input_ids=tokens, labels=tokens).loss.backward()
step()
began = time.perf_counter()
for _ in range(int(sys.argv[1])):
    step()
print((time.perf_counter() - began) / int(sys.argv[1]))
"""
REAL = """
import sys, time
import leap
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
torch.manual_seed(0)
base = AutoModelForCausalLM.from_pretrained(sys.argv[4], dtype=torch.bfloat16)
if sys.argv[2] == "now":
    torch.set_num_threads(1)
tokens = torch.randint(0, 1000, (1, 1000))
prompts = torch.randint(0, 1000, (32, 50))
if sys.argv[3] == "decoding":
    def step():
        base.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=16, min_new_tokens=16, do_sample=False)
else:
    model = get_peft_model(base, LoraConfig(r=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    def step():
        model(input_ids=tokens, labels=tokens).loss.backward()
step()
began = time.perf_counter()
for _ in range(int(sys.argv[1])):
    step()
print((time.perf_counter() - began) / int(sys.argv[1]))
"""
WAYS = {
    "a thread for each core, PyTorch's waiting": ("cores", {"OMP_WAIT_POLICY": ""}),
    "a thread for each core, passive waiting": ("cores", {}),
    "one thread, passive waiting": ("now", {}),
}


def seconds(steps: int, busy: int, which: str, variables: dict[str, str], what: str = "", checkpoint: str = "") -> float:
    """A step's seconds beside so many busy programs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")} | variables
    beside = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        command = [sys.executable, "-c", REAL if checkpoint else STEP, str(steps), which, what, checkpoint]
        return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    finally:
        for process in beside:
            process.kill()


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--most-busy", type=int, default=2)
    parser.add_argument("--checkpoint", default="")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} CPUs, load {load:.1f}; seconds of a step")
    for busy in range(arguments.most_busy + 1):
        for what in ("training", "decoding") if arguments.checkpoint else ("training",):
            for name, (which, variables) in list(WAYS.items())[1 if arguments.checkpoint else 0 :]:
                took = seconds(arguments.steps, busy, which, variables, what, arguments.checkpoint)
                print(f"{busy} busy programs beside; {what}; {name}: {took:.3f}", flush=True)


if __name__ == "__main__":
    main()
