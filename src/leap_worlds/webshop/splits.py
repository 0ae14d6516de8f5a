"""Splits and protocols. A number from WebShop can be compared only with numbers from the same protocol, so each has a name.

| split | goals | of |
|---|---|---|
| `train`, `eval`, `test` | 1500 and on, 500-1499, 0-499 of the goals that people wrote | any catalogue |
| `all` | all that people wrote; for `leap validate`, and to test on only | any catalogue |
| `leap` | the same as `test`: the 500 test tasks of LEAP and of WebShop's authors | the official catalogue |
| `eto` | 200 of the goals that people wrote, spread over all of them | the official catalogue |
| `eto_train`, `eto_eval` | `train` and `eval` without those 200 | the official catalogue |
| `synthetic`, `synthetic_train` | 0-499, and 500 and on of the made-up goals | any catalogue |
| `verl-agent`, `verl-agent_train` | the same, of the first 1,000 products | the official small catalogue |

LEAP scores `leap` by the mean reward within 30 actions; ETO scores `eto` by the mean reward within 10; verl-agent scores by
success within 15. (ETO's own training list overlaps its test list, and later versions of verl-agent shuffle the goals by a
seed of their own; here neither is so.)

Sources: WebShop 64fa2a5, baseline_models/env.py; the test list of ETO (Song et al. 2024) as its successors IPR (WeiminXiong/IPR
14911dd) and KnowSelf (zjunlp/KnowSelf 439032e) publish it, eval_agent/data/webshop/test_indices.json; verl-agent,
agent_system/environments/env_package/webshop/envs.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

OFFICIAL_HUMAN_GOALS = 12_087
SMALL_PRODUCTS = 1_000
OFFICIAL_SMALL_GOALS = 6_910
_TEST, _EVAL = 500, 1_500
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
    """Which goals of which products."""

    HUMAN = "human"
    """Those that people wrote, for all products."""
    SYNTHETIC = "synthetic"
    """Those made up from attributes and options, for all products."""
    SMALL = "synthetic-1000"
    """Those made up, for the first 1,000 products."""


@dataclass(frozen=True)
class Split:
    """A named set of goals.

    Attributes:
        name: As a recipe and every number say it.
        world: Where its goals are from.
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

    def indices(self, goals: int) -> Sequence[int]:
        """Its goal numbers in a catalogue with so many goals, in order."""
        whole = range(self.start, min(goals if self.stop is None else self.stop, goals))
        if self.only is None and not self.without:
            return whole
        return [index for index in whole if index not in self.without and (self.only is None or index in self.only)]


def _splits() -> list[Split]:
    human, synthetic, small = World
    official = OFFICIAL_HUMAN_GOALS
    return [
        Split("train", human, _EVAL),
        Split("eval", human, _TEST, _EVAL),
        Split("test", human, 0, _TEST, test=True),
        Split("all", human, test=True),
        Split("leap", human, 0, _TEST, test=True, goals=official),
        Split("eto", human, test=True, goals=official, only=ETO_TEST),
        Split("eto_train", human, _EVAL, goals=official, without=ETO_TEST),
        Split("eto_eval", human, _TEST, _EVAL, goals=official, without=ETO_TEST),
        Split("synthetic", synthetic, 0, _TEST, test=True),
        Split("synthetic_train", synthetic, _TEST),
        Split("verl-agent", small, 0, _TEST, test=True, goals=OFFICIAL_SMALL_GOALS),
        Split("verl-agent_train", small, _TEST, goals=OFFICIAL_SMALL_GOALS),
    ]


SPLITS = {split.name: split for split in _splits()}
TEST_SPLITS = frozenset(split.name for split in SPLITS.values() if split.test)
