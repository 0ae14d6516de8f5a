"""leap: language-model agents that learn from privileged feedback and become better than their teacher.

The system of Choudhury & Sodhi, "Better than Your Teacher: LLM Agents that learn from Privileged AI Feedback"
(arXiv 2410.05434). What this module names is public; everything else may change. Importing it imports nothing else: each
name brings its own part in when it is first used.
"""

from __future__ import annotations

import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# PyTorch's threads sleep while they wait for each other, and leave the core to whoever needs it. Read when it is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# PEFT loads bitsandbytes wherever it is installed, which then warns of a kernel for 4-bit weights on a CPU.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__version__ = "0.1.0"

__all__ = [
    "Act", "Actor", "Ask", "Collected", "Completion", "Correction", "Decision", "DecodingConfig", "DecodingPolicy", "Environment",
    "EnvironmentConfig", "Episode", "Evaluation", "FreeText", "Grammar", "History", "Job", "Line", "Method",
    "Model", "Observation", "Outcome", "Policy", "PrivilegedState", "Provider", "Recipe", "Records", "Request", "Run",
    "SFTConfig", "Session", "Step", "Student", "Task", "Teacher", "TeacherConfig", "Tool", "ToolCalls",
    "TrainingResult", "TrainingSettings", "Tutor", "__version__", "check_env", "correct", "environment", "errors",
    "evaluate", "executor", "expert", "method", "model", "open", "policy", "rollout", "run", "sampled", "sandbox",
    "teacher", "unknown_split",
]  # fmt: skip

if TYPE_CHECKING:
    from leap import errors
    from leap.api import Records, Run, evaluate, rollout, run
    from leap.api import Run as open
    from leap.check import check_env
    from leap.core import Actor, Correction, Decision, Episode, History, Observation, PrivilegedState, Step, Task
    from leap.envs.base import Environment, EnvironmentConfig, Outcome, Session, sampled, unknown_split
    from leap.envs.grammar import FreeText, Grammar, Line, ToolCalls
    from leap.envs.tools import Tool
    from leap.envs.tutor import Tutor
    from leap.evaluation import Evaluation
    from leap.models.base import Completion, Model, Request
    from leap.models.providers import Provider
    from leap.policies.base import Act, Policy
    from leap.policies.decoding import DecodingConfig, DecodingPolicy
    from leap.recipe import Recipe
    from leap.registry import environment, executor, method, model, policy, sandbox, teacher
    from leap.student import Student, correct, expert
    from leap.teachers.base import Teacher
    from leap.teachers.config import TeacherConfig
    from leap.teachers.function import Ask
    from leap.training.config import SFTConfig, TrainingSettings
    from leap.training.method import Collected, Job, Method, TrainingResult

_WHERE = {
    "leap.api": "Records Run evaluate rollout run",
    "leap.check": "check_env",
    "leap.core": "Actor Correction Decision Episode History Observation PrivilegedState Step Task",
    "leap.envs.base": "Environment EnvironmentConfig Outcome Session sampled unknown_split",
    "leap.envs.grammar": "FreeText Grammar Line ToolCalls",
    "leap.envs.tools": "Tool",
    "leap.envs.tutor": "Tutor",
    "leap.evaluation": "Evaluation",
    "leap.models.base": "Completion Model Request",
    "leap.models.providers": "Provider",
    "leap.policies.base": "Act Policy",
    "leap.policies.decoding": "DecodingConfig DecodingPolicy",
    "leap.recipe": "Recipe",
    "leap.registry": "environment executor method model policy sandbox teacher",
    "leap.student": "Student correct expert",
    "leap.teachers.base": "Teacher",
    "leap.teachers.config": "TeacherConfig",
    "leap.teachers.function": "Ask",
    "leap.training.config": "SFTConfig TrainingSettings",
    "leap.training.method": "Collected Job Method TrainingResult",
}
_OF = {name: module for module, names in _WHERE.items() for name in names.split()} | {"open": "leap.api"}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("leap.errors")
    if name not in _OF:
        from leap.errors import suggest

        raise AttributeError(f"module 'leap' has no attribute {name!r}.{suggest(name, __all__)}")
    return getattr(import_module(_OF[name]), "Run" if name == "open" else name)


def __dir__() -> list[str]:
    return __all__
