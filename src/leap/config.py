"""Settings: the base of every section of a recipe, and sections whose keys depend on the kind of thing they name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from leap.errors import LeapError, RecipeError, describe_validation_error, suggest
from leap.registry import Registry

UNKNOWN_KEY = "unknown_key"
"""Type of the finding that a key is not known; its message may say which was meant."""

UNKNOWN_KIND = "kind"
"""Type of the finding that nothing is registered by the name that a section gives."""

_PYDANTIC_TYPES = frozenset(get_args(core_schema.ErrorType))


class Section(BaseModel):
    """A part of a recipe. Unknown keys are errors that name the key, and the known one that is nearest to it.

    Class attributes:
        gone: Keys of earlier versions, with the value that holds always now. Recipes that say the same are valid, others not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    gone: ClassVar[dict[str, object]] = {}

    @classmethod
    def from_values(cls, values: object, where: str) -> Self:
        """Returns the settings that values state; `where` says in the message what they are.

        Raises:
            RecipeError: They are not valid.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise RecipeError(describe_validation_error(error, where)) from error

    @model_validator(mode="wrap")
    @classmethod
    def _name_unknown_keys(cls, values: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if cls.gone and isinstance(values, Mapping):
            values = {key: value for key, value in values.items() if key not in cls.gone or value != cls.gone[key]}
        try:
            if isinstance(values, Mapping):
                cls._check_numbers(values)
            return handler(values)
        except ValidationError as error:
            raise _with_unknown_keys(error, cls.hint) from None

    @classmethod
    def _check_numbers(cls, values: Mapping[str, object]) -> None:
        """Refuses true where a number is due: pydantic would read it as 1."""
        found: list[InitErrorDetails] = []
        for key in (key for key, value in values.items() if isinstance(value, bool) and key in cls.model_fields):
            annotation = cls.model_fields[key].annotation
            if (kinds := {annotation, *get_args(annotation)}) & {int, float} and bool not in kinds:
                found.append({"type": PydanticCustomError("number", "must be a number"), "loc": (key,), "input": values[key]})
        if found:
            raise ValidationError.from_exception_data(cls.__name__, found)

    @classmethod
    def hint(cls, key: str) -> str:
        """What to say of a key that is not known here: a sentence behind a space, or nothing."""
        if key in cls.gone:
            return f" It is gone: its default, {json.dumps(cls.gone[key])}, always holds."
        return f" Did you mean '{found}'?" if (found := cls.below(key)) else suggest(key, cls.model_fields)

    @classmethod
    def below(cls, key: str) -> str:
        """The dotted key by which one of the sections within has this key; empty where none does."""
        defaults = {name: field.get_default(call_default_factory=True) for name, field in cls.model_fields.items()}
        within = {name: type(one) for name, one in defaults.items() if isinstance(one, Section)}
        found = {name: key if key in section.model_fields else section.below(key) for name, section in within.items()}
        return next((f"{name}.{one}" for name, one in found.items() if one), "")


def _finite(values: object, key: str = "") -> object:
    """Returns values that nothing says the types of, unless one of them is a number that is none."""
    if isinstance(values, float) and not math.isfinite(values):
        raise ValueError(f"{key} must be a finite number, not {values}")
    for name, value in values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ():
        _finite(value, f"{key}.{name}" if key else str(name))
    return values


Options = Annotated[dict[str, Any], AfterValidator(_finite)]
"""Settings of a thing that checks them itself when it is made."""


def by_kind(registry: Registry, base: type[Section], *, key: str = "kind", default: str) -> WrapValidator:
    """Returns a validator for sections whose other keys are those of the `Config` of the thing that the section names.

    Use: `Annotated[SerializeAsAny[TeacherConfig], by_kind(registry.teacher, TeacherConfig, default="expert")]`. What is
    registered without a `Config` of its own has the keys of `base`.

    Args:
        registry: Where the things are registered.
        base: What all their settings derive from.
        key: Key of the section that names the thing.
        default: What is meant where the key is not given.
    """

    def knows(kind: str, unknown: str) -> bool:
        try:
            return unknown in _config_of(registry, base, kind).model_fields
        except LeapError:  # a package that cannot be imported has no say in this
            return False

    def validate(value: object, handler: ValidatorFunctionWrapHandler) -> object:
        # Not pydantic's own discriminator: that puts the kind into the key of every finding ("training.sft.lr").
        if isinstance(value, base):
            return handler(value)
        if not isinstance(value, Mapping):
            such = f", such as {{{key}: {value}}}" if isinstance(value, str) else ""
            raise PydanticCustomError("mapping", "must be a mapping of keys to values{such}", {"such": such})
        kind = value.get(key, default)
        try:
            config = _config_of(registry, base, str(kind))
        except LeapError as error:
            unknown = PydanticCustomError(UNKNOWN_KIND, "{message}", {"message": str(error)})
            details = InitErrorDetails(type=unknown, loc=(key,), input=kind)
            raise ValidationError.from_exception_data("section", [details]) from error
        try:
            return config.model_validate({**value, key: kind})
        except ValidationError as error:

            def hint(unknown: str) -> str:
                if others := " or ".join(other for other in registry.names() if knows(other, unknown)):
                    return f" {key}: {kind} does not have it; {key}: {others} does."
                return config.hint(unknown)

            raise _with_unknown_keys(error, hint) from None

    return WrapValidator(validate)


def _config_of(registry: Registry, base: type[Section], kind: str) -> type[Section]:
    found = getattr(registry.get(kind), "Config", base)
    if not issubclass(found, base):
        raise RecipeError(f"{registry.noun} {kind!r}: its Config must derive from {base.__module__}.{base.__qualname__}.")
    return found


def under_kind(
    registry: Registry, base: type[Section], values: Mapping[str, object], kind: str, *, key: str = "kind"
) -> dict[str, object]:
    """Returns a section as it is under another kind: the values of the keys that the new kind has as well."""
    known = _config_of(registry, base, kind).model_fields
    return {**{name: value for name, value in values.items() if name in known}, key: kind}


def default_config(registry: Registry, kind: str) -> Callable[[], Any]:
    """Returns a factory of the settings that a kind of thing has where a recipe says nothing of it."""
    return lambda: registry.get(kind).Config()


def _with_unknown_keys(error: ValidationError, hint: Callable[[str], str]) -> ValidationError:
    """The same findings, those of keys that this very section does not know with a hint behind them."""
    details: list[InitErrorDetails] = []
    for item in error.errors(include_url=False):
        kind, message = item["type"], item["msg"]
        if kind in ("extra_forbidden", UNKNOWN_KEY) and len(item["loc"]) == 1:
            said = hint(str(item["loc"][0]))
            kind, message = UNKNOWN_KEY, f"unknown key.{said}" if said else "unknown key"
        custom: Any = PydanticCustomError(kind, "{message}", {"message": message})  # type: ignore[arg-type]
        found = kind if kind in _PYDANTIC_TYPES else custom
        details.append(InitErrorDetails(type=found, loc=item["loc"], input=item["input"], ctx=item.get("ctx", {})))
    return ValidationError.from_exception_data(error.title, details)
