"""leap: language-model agents that learn from privileged feedback and become better than their teacher.

The system of Choudhury & Sodhi, "Better than Your Teacher: LLM Agents that learn from Privileged AI Feedback"
(arXiv 2410.05434). What this module names is public; everything else may change. Importing it imports nothing else: each
name brings its own part in when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from leap import errors as errors
    from leap.api import Records as Records
    from leap.api import Run as Run
    from leap.api import Run as open  # noqa: F401
    from leap.api import evaluate as evaluate
    from leap.api import rollout as rollout
    from leap.api import run as run
    from leap.check import check_env as check_env
    from leap.core import Actor as Actor
    from leap.core import Correction as Correction
    from leap.core import Decision as Decision
    from leap.core import Episode as Episode
    from leap.core import History as History
    from leap.core import Observation as Observation
    from leap.core import PrivilegedState as PrivilegedState
    from leap.core import Step as Step
    from leap.core import Task as Task
    from leap.envs.base import Environment as Environment
    from leap.envs.base import EnvironmentConfig as EnvironmentConfig
    from leap.envs.base import Outcome as Outcome
    from leap.envs.base import Session as Session
    from leap.envs.base import sampled as sampled
    from leap.envs.base import unknown_split as unknown_split
    from leap.envs.grammar import FreeText as FreeText
    from leap.envs.grammar import Grammar as Grammar
    from leap.envs.grammar import Line as Line
    from leap.envs.grammar import ToolCalls as ToolCalls
    from leap.envs.tools import Tool as Tool
    from leap.envs.tutor import Tutor as Tutor
    from leap.evaluation import Evaluation as Evaluation
    from leap.models.base import Model as Model
    from leap.models.providers import Provider as Provider
    from leap.policies.base import Act as Act
    from leap.policies.base import Policy as Policy
    from leap.policies.decoding import DecodingConfig as DecodingConfig
    from leap.policies.decoding import DecodingPolicy as DecodingPolicy
    from leap.recipe import Recipe as Recipe
    from leap.registry import environment as environment
    from leap.registry import executor as executor
    from leap.registry import method as method
    from leap.registry import model as model
    from leap.registry import policy as policy
    from leap.registry import sandbox as sandbox
    from leap.registry import teacher as teacher
    from leap.student import Student as Student
    from leap.student import correct as correct
    from leap.student import expert as expert
    from leap.teachers.base import Teacher as Teacher
    from leap.teachers.config import TeacherConfig as TeacherConfig
    from leap.teachers.function import Ask as Ask
    from leap.training.config import SFTConfig as SFTConfig
    from leap.training.config import TrainingSettings as TrainingSettings
    from leap.training.method import Collected as Collected
    from leap.training.method import Job as Job
    from leap.training.method import Method as Method
    from leap.training.method import TrainingResult as TrainingResult

_WHERE = {
    "leap.api": ("Records", "Run", "evaluate", "rollout", "run"),
    "leap.core": (
        "Actor", "Correction", "Decision", "Episode", "History", "Observation", "PrivilegedState", "Step", "Task",
    ),
    "leap.envs.base": ("Environment", "EnvironmentConfig", "Outcome", "Session", "sampled", "unknown_split"),
    "leap.check": ("check_env",),
    "leap.envs.grammar": ("FreeText", "Grammar", "Line", "ToolCalls"),
    "leap.envs.tools": ("Tool",),
    "leap.envs.tutor": ("Tutor",),
    "leap.evaluation": ("Evaluation",),
    "leap.models.base": ("Model",),
    "leap.models.providers": ("Provider",),
    "leap.policies.base": ("Act", "Policy"),
    "leap.policies.decoding": ("DecodingConfig", "DecodingPolicy"),
    "leap.recipe": ("Recipe",),
    "leap.registry": ("environment", "executor", "method", "model", "policy", "sandbox", "teacher"),
    "leap.student": ("Student", "correct", "expert"),
    "leap.teachers.base": ("Teacher",),
    "leap.teachers.config": ("TeacherConfig",),
    "leap.teachers.function": ("Ask",),
    "leap.training.config": ("SFTConfig", "TrainingSettings"),
    "leap.training.method": ("Collected", "Job", "Method", "TrainingResult"),
}  # fmt: skip
_OF = {name: module for module, names in _WHERE.items() for name in names} | {"open": "leap.api"}

__all__ = ["__version__", "errors", *sorted(_OF)]  # noqa: PLE0604 # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("leap.errors")
    if name not in _OF:
        raise AttributeError(f"module 'leap' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_OF[name]), "Run" if name == "open" else name)


def __dir__() -> list[str]:
    return __all__
