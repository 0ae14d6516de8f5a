"""Stands in for the `vllm` program in tests of how it is started, asked and stopped: `serve MODEL --port P ...`.

What it does beside serving is told by the environment: STAND_IN_FAILS (an error before it serves), STAND_IN_SLOW (seconds
until it is healthy), STAND_IN_NOTES (a file for its command line, its process ids and the adapters loaded and unloaded).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ADAPTERS: dict[str, str] = {}


def note(**facts: Any) -> None:
    with Path(os.environ["STAND_IN_NOTES"]).open("a") as file:
        file.write(json.dumps(facts) + "\n")


class Handler(BaseHTTPRequestHandler):
    model = ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.reply(200, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}":
            self.reply(401, {"error": "Unauthorized"})
        elif self.path == "/v1/load_lora_adapter":
            if os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] != "True":
                self.reply(404, {"detail": "Not Found"})
            elif body["lora_name"] in ADAPTERS:
                self.reply(400, {"error": {"message": "already loaded"}})
            elif "refused" in body["lora_path"]:
                self.reply(400, {"error": {"message": "LoRA rank 99 is greater than max_lora_rank 64.", "code": 400}})
            else:
                ADAPTERS[body["lora_name"]] = body["lora_path"]
                note(loaded=body)
                self.reply(200, {})
        elif self.path == "/v1/unload_lora_adapter":
            del ADAPTERS[body["lora_name"]]
            note(unloaded=body["lora_name"])
            self.reply(200, {})
        elif body["model"] in (self.model, *ADAPTERS):
            text = f"{ADAPTERS.get(body['model'], body['model'])} says {body['messages'][-1]['content']}"
            message = {"role": "assistant", "content": text}
            usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
            self.reply(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage})
        else:
            self.reply(404, {"error": {"message": f"The model `{body['model']}` does not exist.", "code": 404}})

    def reply(self, status: int, value: dict[str, Any]) -> None:
        payload = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def main() -> None:
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # as vLLM's engine
    note(argv=sys.argv[1:], pids=[os.getpid(), worker.pid])
    print("INFO starting")
    if problem := os.environ.get("STAND_IN_FAILS"):
        print(f"Traceback (most recent call last):\n  File x\nValueError: {problem}\nINFO bye", flush=True)
        sys.exit(1)
    time.sleep(float(os.environ.get("STAND_IN_SLOW", "0")))
    assert sys.argv[1] == "serve"
    Handler.model = sys.argv[2]
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()


if __name__ == "__main__":
    main()
