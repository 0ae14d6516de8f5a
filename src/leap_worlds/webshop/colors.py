"""The colours that two options are compared by.

Source: `COLOR_SET` and `normalize_color` of WebShop 64fa2a5, web_agent_site/engine/normalize.py (MIT, Copyright (c) 2023
Princeton Natural Language Processing). The order is part of the rule: the first that is found stands for the whole option.
"""

from __future__ import annotations

import re

_NAMES = (
    "alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy camel camo "
    "caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac copper coral cranberry cream crystal "
    "dark denim eggplant elephant espresso fuchsia gold granite grape graphite grass gray green grey heather indigo ivory "
    "ivy khaki lavender lemon leopard light lilac lime magenta maroon mauve merlot midnight mint mocha multicolor mushroom "
    "mustard natural navy nude olive orange peach pewter pink plum purple rainbow red rose royal rust sand sapphire "
    "seashell silver skull slate steel stone stonewash sunflower tan taupe teal tiger turquoise violet walnut wheat white "
    "wine yellow"
)
COLORS = tuple(_NAMES.split())
_WORDS = [(color, re.compile(rf"\b{color}")) for color in COLORS]


def first_color(text: str) -> str:
    """The first colour of the list that the text contains, also within a word ("red" in "bordered"); else the text."""
    return next((color for color in COLORS if color in text), text)


def first_color_word(text: str) -> str:
    """Returns the first colour of the list that begins a word of the text; else the text."""
    return next((color for color, pattern in _WORDS if pattern.search(text)), text)
