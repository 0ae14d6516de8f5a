"""Splits and protocols. A number from WebShop can be compared only with numbers from the same protocol, so each has a name.

`docs/webshop.md` says what each means, and how it is scored. (ETO's own training list overlaps its test list, and later
versions of verl-agent shuffle the goals by a seed of their own; here neither is so.)

Sources: WebShop 64fa2a5, baseline_models/env.py; the test list of ETO (Song et al. 2024) as its successors IPR
(WeiminXiong/IPR 14911dd) and KnowSelf (zjunlp/KnowSelf 439032e) publish it, eval_agent/data/webshop/test_indices.json;
verl-agent, agent_system/environments/env_package/webshop/envs.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

OFFICIAL_HUMAN_GOALS = 12_087
SMALL_PRODUCTS = 1_000
OFFICIAL_SMALL_GOALS = 6_910
_TEST, _EVAL = 500, 1_500
_SMALL_EVAL = 1_000
"""verl-agent trains on all from 500 on; here the first 500 of those are kept apart, to choose by."""
_ETO_TEST = """
2853 5934 1642 4914 4805 9666 900 6133 10887 11543 2583 2933 1689 6351 580 10031 1451 11390 3403 11870 8693 8359 6719
5413 8255 9639 9188 1346 10959 4705 3917 3503 3584 6446 3141 9645 3847 10151 1035 5030 9911 5009 11861 4417 8891 2367
11882 3936 11580 1190 10965 1414 8695 485 10886 9102 2980 3230 6990 3854 9680 4117 3229 8120 10558 8089 10126 11155
4944 8573 7624 8330 9744 10660 3466 1427 5948 6453 7331 5433 6943 3642 10183 10364 5825 5492 5613 2640 7097 7375 7368
3134 4288 8725 10939 8231 6770 3569 10789 5757 7828 8459 10584 9518 5023 11809 4656 5720 7475 4161 5455 10072 3841
7802 7265 5144 4196 5457 6604 604 3742 861 7232 4249 9346 4999 7235 7603 7057 6766 6074 4886 8208 7572 11151 9169 1301
4530 1143 314 3012 7209 6275 8387 9794 10438 950 9963 2828 5563 11358 5900 2751 1857 6925 4962 11572 5375 11322 6206
11831 1145 5068 6686 11020 7953 1254 8897 9439 4465 10188 11896 3137 978 7922 6115 2159 4318 11755 3354 4078 7999 7607
9021 988 10982 6596 846 1211 7662 3838 8434 2731 4415 1410 1735 4773 7378 3944 818
"""
ETO_TEST = frozenset(map(int, _ETO_TEST.split()))
"""Goal numbers of ETO's test tasks."""


class World(StrEnum):
    """Which goals: those that people wrote, those made up for all products, and those made up for the first 1,000."""

    HUMAN = "human"
    SYNTHETIC = "synthetic"
    SMALL = "synthetic-1000"


@dataclass(frozen=True)
class Split:
    """A named set of goals.

    Attributes:
        name, world: As a recipe and every number say it; where its goals are from.
        start, stop: A range of goal numbers; to the end if `stop` is None.
        test: Whether it may only be tested on.
        goals: How many goals the catalogue must have, so that numbers mean the same tasks; any if None.
        only, without: Goal numbers that alone are in it, or that are not in it.
    """

    name: str
    world: World
    start: int = 0
    stop: int | None = None
    test: bool = False
    goals: int | None = None
    only: frozenset[int] | None = None
    without: frozenset[int] = frozenset()

    def indices(self, goals: int) -> list[int]:
        """Its goal numbers in a catalogue with so many goals, in order."""
        whole = range(self.start, min(goals if self.stop is None else self.stop, goals))
        return [index for index in whole if index not in self.without and (self.only is None or index in self.only)]


_SPLITS = (
    Split("train", World.HUMAN, _EVAL),
    Split("eval", World.HUMAN, _TEST, _EVAL),
    Split("test", World.HUMAN, 0, _TEST, test=True),
    Split("all", World.HUMAN, test=True),
    Split("leap", World.HUMAN, 0, _TEST, test=True, goals=OFFICIAL_HUMAN_GOALS),
    Split("eto", World.HUMAN, test=True, goals=OFFICIAL_HUMAN_GOALS, only=ETO_TEST),
    Split("eto_train", World.HUMAN, _EVAL, goals=OFFICIAL_HUMAN_GOALS, without=ETO_TEST),
    Split("eto_eval", World.HUMAN, _TEST, _EVAL, goals=OFFICIAL_HUMAN_GOALS, without=ETO_TEST),
    Split("synthetic", World.SYNTHETIC, 0, _TEST, test=True),
    Split("synthetic_train", World.SYNTHETIC, _TEST),
    Split("verl-agent", World.SMALL, 0, _TEST, test=True, goals=OFFICIAL_SMALL_GOALS),
    Split("verl-agent_train", World.SMALL, _SMALL_EVAL, goals=OFFICIAL_SMALL_GOALS),
    Split("verl-agent_eval", World.SMALL, _TEST, _SMALL_EVAL, goals=OFFICIAL_SMALL_GOALS),
)
SPLITS = {split.name: split for split in _SPLITS}
TEST_SPLITS = frozenset(split.name for split in _SPLITS if split.test)
