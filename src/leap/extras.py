"""Optional packages: what each extra of this distribution brings, and which one to install for a module that is missing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, requires

DISTRIBUTION = "leap-agents"

_REQUIREMENT = re.compile(r"""([A-Za-z0-9._-]+).*;.*\bextra\s*==\s*['"]([\w-]+)['"]""")
_IMPORTED_AS = {"sklearn": "scikit-learn"}


def extras() -> Mapping[str, list[str]]:
    """Returns the packages of each extra, as the distribution's own metadata tells."""
    found: dict[str, list[str]] = {}
    try:
        requirements = requires(DISTRIBUTION) or ()
    except PackageNotFoundError:
        requirements = ()
    for requirement in requirements:
        if (match := _REQUIREMENT.match(requirement)) and match[1] != DISTRIBUTION:
            found.setdefault(match[2], []).append(match[1])
    return found


def with_remedy(error: Exception, needed_by: str = "") -> str:
    """Returns an import error's message, and the command that installs what is missing where an extra brings it: of several
    extras the one that is made for what needs it."""
    module = (getattr(error, "name", None) or "").partition(".")[0]
    wanted = _plain(_IMPORTED_AS.get(module, module))
    found = [extra for extra, packages in extras().items() if wanted in map(_plain, packages)]
    found = [extra for extra in found if extra not in ("all", "dev")] or found
    found.sort(key=lambda extra: not needed_by.startswith(extra))
    return f"{error}. Give `pip install '{DISTRIBUTION}[{found[0]}]'`." if found else str(error)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
