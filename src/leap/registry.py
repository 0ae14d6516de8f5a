"""Registries: each kind of thing that leap can be extended by, found by its name.

There are two ways in. A script, a notebook or a test decorates a class:

    @leap.registry.environment("support")
    class Support(Environment): ...

A package names its class in its entry points, so that nothing is imported before it is wanted:

    [project.entry-points."leap.environments"]
    support = "my_package.support:Support"

leap's own kinds are registered through entry points as well.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from leap.errors import PrerequisiteError, RecipeError, suggest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class Registry:
    """The registered things of one kind, by name.

    Args:
        noun: What one of them is called in messages, for example `environment`.
        group: Entry-point group by which packages register theirs.
    """

    def __init__(self, noun: str, group: str) -> None:
        self.noun = noun
        self.group = group
        self._decorated: dict[str, object] = {}

    def __call__(self, name: str) -> Callable[[T], T]:
        """Returns a decorator that registers a class (or a function, where the kind allows one) by a name.

        A class that is defined again, as when a notebook's cell is run twice, takes its own place. A class without a `name` of
        its own is given this one.

        Raises:
            RecipeError: The name is malformed, or something else is registered by it.
        """
        if not _NAME.fullmatch(name):
            raise RecipeError(f"{name!r} cannot name a {self.noun}: use letters, digits and . _ + - alone.")

        def register(thing: T) -> T:
            there = self.where().get(name)
            if there not in (None, _place(thing)):
                raise RecipeError(f"there is already a {self.noun} {name!r}: {there}. Choose another name.")
            if isinstance(thing, type) and vars(thing).get("name", thing.__name__) == thing.__name__:
                thing.name = name  # type: ignore[attr-defined]
            self._decorated[name] = thing
            return thing

        return register

    def get(self, name: str) -> Any:
        """Returns what is registered by a name, importing it if need be.

        Raises:
            RecipeError: Nothing is, or several packages register the same name.
            PrerequisiteError: It cannot be imported.
        """
        if name in self._decorated:
            return self._decorated[name]
        points = {point.value: point for point in self._points() if point.name == name}
        if len(points) > 1:
            raise RecipeError(f"{self.noun} {name!r} is registered more than once: {', '.join(sorted(points))}.")
        if not points:
            known = ", ".join(self.names()) or "none; is leap installed (pip install -e .)?"
            raise RecipeError(f"there is no {self.noun} {name!r}.{suggest(name, self.names())} Registered: {known}.")
        (point,) = points.values()
        try:
            thing = point.load()
        except SystemExit as error:
            raise PrerequisiteError(f"{self.noun} {name!r} cannot be imported: {point.value} calls sys.exit()") from error
        except (ImportError, AttributeError) as error:
            from leap.extras import with_remedy

            raise PrerequisiteError(f"{self.noun} {name!r} cannot be imported: {with_remedy(error, name)}") from error
        if not callable(thing):
            raise PrerequisiteError(f"{self.noun} {name!r}, {point.value}, is neither a class nor a function: {thing!r:.60}")
        return thing

    def names(self) -> list[str]:
        """Returns all registered names in order, importing nothing."""
        return sorted(self.where())

    def where(self) -> dict[str, str]:
        """Returns where each registered thing is defined, as `module:qualified name`, importing nothing."""
        found = {point.name: point.value for point in self._points()}
        return found | {name: _place(thing) for name, thing in self._decorated.items()}

    @property
    def decorated(self) -> dict[str, object]:
        """What was registered by a decorator in this process: another process does not know of it."""
        return dict(self._decorated)

    def _points(self) -> tuple[EntryPoint, ...]:
        return _entry_points(self.group, tuple(sys.path))


@lru_cache(maxsize=32)
def _entry_points(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """A group's entry points. Reading them takes milliseconds, and a recipe asks for names dozens of times."""
    from importlib.metadata import entry_points

    return tuple(entry_points(group=group))


def _place(thing: object) -> str:
    return f"{thing.__module__}:{getattr(thing, '__qualname__', type(thing).__qualname__)}"


OWN = ("leap", "leap_worlds", "leap_lab")
"""The packages of leap itself."""


def packages() -> set[str]:
    """The packages that register anything, beside leap's own: those of users."""
    everything = (kind for kind in globals().values() if isinstance(kind, Registry))
    return {place.partition(":")[0].partition(".")[0] for kind in everything for place in kind.where().values()} - {*OWN}


def raised_by_others(error: BaseException) -> str:
    """The traceback of a package that is registered with leap, a user's own, where the error came from there; else nothing."""
    import traceback

    trace, theirs = error.__traceback__, None
    while trace is not None:
        package = str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0]
        theirs = None if package in OWN else theirs or (trace if package in packages() else None)
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, theirs)).rstrip() if theirs else ""


def user_modules() -> tuple[str, ...]:
    """The modules in which things are registered by decorators: another process imports them to find these by name. A script has
    no name that another process could import."""
    kinds = (kind for kind in globals().values() if isinstance(kind, Registry))
    named = {getattr(thing, "__module__", "") for kind in kinds for thing in kind._decorated.values()}
    return tuple(sorted(named - {"__main__", "__mp_main__", ""}))


environment = Registry("environment", "leap.environments")
teacher = Registry("teacher", "leap.teachers")
model = Registry("model provider", "leap.models")
method = Registry("method", "leap.methods")
policy = Registry("policy", "leap.policies")
sandbox = Registry("sandbox", "leap.sandboxes")
executor = Registry("executor", "leap.executors")
demonstration = Registry("source of demonstrations", "leap.demonstrations")
stage = Registry("stage", "leap.stages")
command = Registry("command", "leap.commands")
report_section = Registry("report section", "leap.report_sections")
