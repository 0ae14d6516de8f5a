"""Stands in for vLLM in tests of students on an engine, over HTTP, with a real small model behind it, LoRA adapters that come and
go, regular expressions, token ids and log-probabilities; for SGLang too. In a thread (`StandIn`), or as a program:
`serve MODEL --port P [options]`, which notes its command line, its process id and what it was asked in the file STAND_IN_NOTES.

It knows what leap sends and refuses anything else, as those engines do with a word in the wrong place.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import regex
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

if TYPE_CHECKING:
    import pytest

KNOWN = {
    *(
        "model",
        "prompt",
        "temperature",
        "seed",
        "top_p",
        "top_k",
        "min_p",
        "repetition_penalty",
        "stop_token_ids",
        "logprobs",
    ),
    *("return_token_ids", "max_tokens", "stop", "logit_bias"),
}
SGLANG, VLLM = {"regex", "lora_path", "no_stop_trim"}, {"structured_outputs"}


class Refused(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Anything:
    """Holds an answer to nothing."""

    ends = False

    def allowed(self) -> set[int] | None:
        return None

    def advance(self, token: int) -> None:
        pass


class Expression(Anything):
    """A regular expression of the text, whatever the tokens."""

    def __init__(self, expression: str, texts: list[str], special: set[int]) -> None:
        self.expression, self.texts, self.special, self.said = expression, texts, special, ""

    @property
    def ends(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return bool(regex.fullmatch(self.expression, self.said))

    def allowed(self) -> set[int] | None:
        fits = (
            i for i, t in enumerate(self.texts) if t and regex.fullmatch(self.expression, self.said + t, partial=True)
        )
        return {*fits} - self.special

    def advance(self, token: int) -> None:
        self.said += self.texts[token]


class StandIn:
    """A server, which serves in a thread within a `with` block.

    Args:
        options: Of its command line.
        lacks: Words: `runtime` has no routes for adapters, `lora` takes none, `ids` gives no token ids,
            `dies` ends the process at the third answer.
        key: The key that it asks for, if any.
        sglang: Whether it speaks as SGLang does.

    Attributes:
        notes: What was loaded, unloaded and asked.
    """

    def __init__(self, options: Sequence[str], lacks: str = "", key: str = "", sglang: bool = False) -> None:
        self.options = told = arguments().parse_args([*options])
        self.lacks, self.key, self.sglang, self.notes = lacks, key, sglang, list[dict[str, Any]]()
        self.name = told.served_model_name or told.model
        self.model: Any = AutoModelForCausalLM.from_pretrained(told.model, use_safetensors=True).float().eval()
        self.tokenizer = AutoTokenizer.from_pretrained(told.model)
        self.context = told.max_model_len or self.model.config.max_position_embeddings
        self.texts = [self.tokenizer.decode([i]) for i in range(len(self.tokenizer))]
        self.special = {*self.tokenizer.all_special_ids}
        self.adapters: dict[str, str] = {}
        self.answers = 0
        self.lock = threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", told.port), type("Bound", (Handler,), {"engine": self}))
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def __enter__(self) -> StandIn:
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    def note(self, **facts: Any) -> None:
        self.notes.append(facts)
        if path := os.environ.get("STAND_IN_NOTES"):
            with Path(path).open("a") as file:
                file.write(json.dumps(facts) + "\n")

    def noted(self, word: str) -> list[Any]:
        return [facts[word] for facts in self.notes if word in facts]

    def cards(self) -> list[dict[str, Any]]:
        root = self.name if self.sglang else self.options.model
        base = {"id": self.name, "object": "model", "root": root, "parent": None, "max_model_len": self.context}
        return [base, *({"id": name, "root": path, "parent": self.name} for name, path in self.adapters.items())]

    def load(self, name: str, path: str) -> None:
        if "lora" in self.lacks:
            raise Refused(500, "Call to add_lora method failed: LoRA is not enabled. Use --enable-lora to enable LoRA.")
        if name in self.adapters:
            raise Refused(400, f"The lora adapter '{name}' has already been loaded.")
        try:
            rank = json.loads((Path(path) / "adapter_config.json").read_text())["r"]
        except OSError:
            raise Refused(404, f"Loading lora {name} failed: No adapter found for {path}") from None
        if rank > self.options.max_lora_rank:
            raise Refused(500, f"LoRA rank {rank} is greater than max_lora_rank {self.options.max_lora_rank}.")
        try:
            if isinstance(self.model, PeftModel):
                self.model.load_adapter(path, adapter_name=name)
            else:
                self.model = PeftModel.from_pretrained(self.model, path, adapter_name=name).eval()
        except RuntimeError as error:
            raise Refused(500, f"adapter does not fit: {str(error).splitlines()[0]}") from None
        self.adapters[name] = path
        self.note(loaded=name, path=path)

    def unload(self, name: str) -> None:
        if self.adapters.pop(name, None) is None:
            raise Refused(404, f"The lora adapter '{name}' cannot be found.")
        self.model.delete_adapter(name)
        if not self.adapters:
            self.model = self.model.unload()
        self.note(unloaded=name)

    @torch.inference_mode()
    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        if unknown := body.keys() - KNOWN - (SGLANG if self.sglang else VLLM):
            raise Refused(400, f"Extra inputs are not permitted: {sorted(unknown)}")
        named = body.get("lora_path") if self.sglang else body["model"] if body["model"] != self.name else None
        if (self.sglang and body["model"] != self.name) or (named is not None and named not in self.adapters):
            raise Refused(404, f"The model `{named or body['model']}` does not exist.")
        if len(body["prompt"]) + body["max_tokens"] > self.context:
            raise Refused(400, f"This model's maximum context length is {self.context} tokens.")
        self.answers += 1
        if "dies" in self.lacks and self.answers == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        self.note(asked={key: value for key, value in body.items() if key != "prompt"}, prompt=body["prompt"])
        held = body if self.sglang else body.get("structured_outputs", {})
        shape: Anything = Anything()
        if held.get("regex"):
            shape = Expression(held["regex"], self.texts, self.special)
        if named is not None:
            self.model.set_adapter(named)
        bare = self.model.disable_adapter() if named is None and self.adapters else nullcontext()
        random = torch.Generator().manual_seed(body["seed"])
        tokens: list[int] = []
        logprobs: list[float] = []
        reason = "length"
        with bare:
            while len(tokens) < body["max_tokens"]:
                logits = self.model(input_ids=torch.tensor([body["prompt"] + tokens])).logits[0, -1].float()
                for token, bias in body.get("logit_bias", {}).items():
                    logits[int(token)] += bias
                if (allowed := shape.allowed()) is not None:
                    allowed = [*allowed, *([self.tokenizer.eos_token_id] if shape.ends else [])]
                    mask = torch.full_like(logits, -torch.inf)
                    mask[allowed] = 0
                    logits = logits + mask
                logprob = torch.log_softmax(logits / (body["temperature"] or 1.0), dim=-1)
                drawn = (
                    logprob.argmax()
                    if body["temperature"] == 0
                    else torch.multinomial(logprob.exp(), 1, generator=random)
                )
                token = int(drawn)
                tokens.append(token)
                logprobs.append(float(logprob[token]))
                if token in body["stop_token_ids"] or token == self.tokenizer.eos_token_id:
                    reason = "stop"
                    break
                shape.advance(token)
                if any(word in self.tokenizer.decode(tokens) for word in body.get("stop", ())):
                    reason = "stop"
                    break
        choice = {"index": 0, "text": self.tokenizer.decode(tokens, skip_special_tokens=True), "finish_reason": reason}
        choice["logprobs"] = {"token_logprobs": logprobs, "tokens": [self.texts[token] for token in tokens]}
        if "ids" not in self.lacks:
            choice["token_ids"] = tokens
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": len(tokens)}
        return {
            "id": "cmpl-1",
            "object": "text_completion",
            "model": body["model"],
            "choices": [choice],
            "usage": usage,
        }


class Handler(BaseHTTPRequestHandler):
    engine: StandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/health":
            self.reply(200, {})
        elif self.path != "/v1/models":
            self.reply(404, {"detail": "Not Found"})
        elif self.known():
            self.reply(200, {"object": "list", "data": self.engine.cards()})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.known():
            return
        root = "" if self.engine.sglang else "/v1"
        try:
            with self.engine.lock:
                if self.path == "/v1/completions":
                    self.reply(200, self.engine.complete(body))
                elif self.path == f"{root}/load_lora_adapter" and "runtime" not in self.engine.lacks:
                    self.engine.load(body["lora_name"], body["lora_path"])
                    self.reply(200, {"success": True} if self.engine.sglang else "Success")
                elif self.path == f"{root}/unload_lora_adapter" and "runtime" not in self.engine.lacks:
                    self.engine.unload(body["lora_name"])
                    self.reply(200, {"success": True} if self.engine.sglang else "Success")
                else:
                    self.reply(404, {"detail": "Not Found"})
        except Refused as problem:
            if self.engine.sglang and "adapter" in self.path:
                self.reply(400, {"success": False, "error_message": str(problem)})
            else:
                self.reply(problem.status, {"error": {"message": str(problem), "code": problem.status}})

    def known(self) -> bool:
        if self.engine.key and self.headers["Authorization"] != f"Bearer {self.engine.key}":
            self.reply(401, {"error": "Unauthorized"})
            return False
        return True

    def reply(self, status: int, value: object) -> None:
        payload = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    for name in ("host", "dtype", "load-format", "logprobs-mode", "served-model-name"):
        parser.add_argument(f"--{name}")
    for name, default in (("port", 0), ("max-lora-rank", 16), ("max-model-len", 0), ("max-num-seqs", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name in ("enable-lora", "enforce-eager"):
        parser.add_argument(f"--{name}", action="store_true")
    return parser


def as_vllm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Any]]:
    """Puts the stand-in on the PATH as `vllm`; returns what gives all that it noted under a word."""
    program = folder / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).resolve()} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN_NOTES", str(folder / "notes"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def noted(word: str) -> list[Any]:
        lines = (folder / "notes").read_text().splitlines() if (folder / "notes").exists() else []
        return [fact[word] for line in lines if word in (fact := json.loads(line))]

    return noted


def gone(pid: int) -> bool:
    """Whether a process ends within the time that a server has for it."""
    for _ in range(600):
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.05)
    return False


def main() -> None:
    torch.set_num_threads(1)
    served = StandIn(sys.argv[1:], os.environ.get("STAND_IN_LACKS", ""), os.environ.get("VLLM_API_KEY", ""))
    served.note(argv=sys.argv[1:], pid=os.getpid(), devices=os.environ.get("CUDA_VISIBLE_DEVICES"))
    served.http.serve_forever()


if __name__ == "__main__":
    main()
