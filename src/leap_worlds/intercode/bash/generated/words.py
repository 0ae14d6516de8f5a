"""The words that generated file systems and requests are made of. No word of contents is part of another one."""

from __future__ import annotations

# ruff: noqa: SIM905

ROOTS = "depot vault archive office studio garden harbor station market museum library workshop".split()
FOLDERS = (
    "notes plans bills letters photos drafts reports lists maps recipes songs books orders forms tests papers tables "
    "tools trips games clips tasks stores parts"
).split()
STEMS = (
    "apple anchor badge banner basket beacon bottle branch bridge bucket budget button cabin camera candle canvas "
    "carpet castle cherry circle cloud coffee copper corner cotton desert dinner dragon drawer engine fabric falcon "
    "feather fence filter flower folder forest fossil galaxy garlic ginger guitar hammer helmet insect island jacket "
    "jungle kettle ladder lantern lemon lesson lizard magnet marble meadow melody mirror monkey motor mountain needle "
    "nephew noodle novel orange orchid oxygen paddle palace parrot pepper piano picnic pillow planet pocket poster "
    "potato puzzle rabbit ribbon rocket saddle salmon school shadow silver sponge spring summer sunset tablet temple "
    "ticket tiger timber tomato tunnel turtle umbrella valley velvet violin walnut window winter wizard zipper"
).split()
ENDINGS = "txt log csv md cfg".split()
WORDS = (
    "amber azure brave brisk calm clean clever cold cosy crisp curly damp deep dusty eager early empty faint fancy "
    "fast firm fresh gentle glad grand great green happy heavy hollow honest huge jolly kind large lazy light lively "
    "lone lucky mellow mild narrow neat noble odd pale plain polite proud quick quiet rapid rare ripe rough round "
    "sharp shiny short shy silent sleepy slim smooth soft solid sour spicy steep strong sweet swift tall thick tidy "
    "tiny vast warm wide wild wise young"
).split()
RARE = (
    "acorn bamboo cactus dolphin eclipse ferry glacier hazel igloo jasmine kayak lotus mango nectar otter pollen "
    "quartz raven saffron thistle urchin vinegar wagon xenon yogurt zebra comet pebble"
).split()
"""Words that are in one file of a file system at most."""
