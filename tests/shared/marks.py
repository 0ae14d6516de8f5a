"""One case of several that the default suite leaves out."""

from functools import partial

import pytest

slow = partial(pytest.param, marks=pytest.mark.slow)
