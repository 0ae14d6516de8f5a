"""WebShop as a leap environment: tasks from a catalogue's goals, visits to its shop, rewards and their parts."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from leap.core import Decision, History, Observation, PrivilegedState, Task
from leap.envs.base import (
    Environment,
    EnvironmentConfig,
    Finding,
    Outcome,
    Progress,
    Session,
    opened,
    sampled,
    unknown_split,
)
from leap.envs.grammar import Line
from leap.envs.tutor import Tutor
from leap.errors import PrerequisiteError
from leap.paths import cache_dir, expanded
from leap_worlds.webshop.build import CatalogueFiles
from leap_worlds.webshop.candidates import (
    SEARCH,
    CandidateMode,
    compat_candidates,
    named_offers,
    plain_action,
    stable_candidates,
)
from leap_worlds.webshop.expert import Checker, Shopper, teach
from leap_worlds.webshop.generator import CatalogueConfig, fingerprint, write_catalogue
from leap_worlds.webshop.goals import Goal
from leap_worlds.webshop.official import check, data_folder, fetch, find_files, official_files
from leap_worlds.webshop.oracle import Oracle, describe
from leap_worlds.webshop.pages import Kind
from leap_worlds.webshop.reward import PARTS, RewardMode
from leap_worlds.webshop.shop import Visit, parse_action
from leap_worlds.webshop.splits import SMALL_PRODUCTS, SPLITS, TEST_SPLITS, Split, World
from leap_worlds.webshop.tagger import Tagger, check_tagger, load_tagger
from leap_worlds.webshop.world import ShopWorld, open_world

_THING = re.compile(r"\bB0[0-9A-Z]{8}\b|\$\d+(?:\.\d+)?", re.IGNORECASE)
_PIECE = re.compile(r"\n| \[SEP\] |[\"“”]|click\[item - |\]")
_PRICE_BEHIND = re.compile(r", \$[\d.]+(?: to \$[\d.]+)?$")
_SHORTEST_TITLE = 5
_READ = 20_000
"""So many products and goals are read for a tokenizer's words."""
_NAMES = 1_000
"""So many names at most are single tokens, the most frequent."""


class WebshopConfig(EnvironmentConfig):
    """WebShop's options in a recipe."""

    gone: ClassVar[dict[str, object]] = {"prices": "seeded"}

    source: Literal["generated", "official"] = Field(
        default="generated", description="A generated catalogue, or the official files."
    )
    generator: CatalogueConfig = Field(default_factory=CatalogueConfig, description="What to generate.")
    path: Path | None = Field(
        default=None, description="Folder of the official files; $WEBSHOP_DATA, else leap's cache, if null."
    )
    products: int | None = Field(default=None, ge=1, description="Only the first so many products of the files; all if null.")
    seed: int = Field(default=0, ge=0, description="Of the prices and price limits, which the original draws unseeded.")
    reward: RewardMode = Field(default=RewardMode.UPSTREAM, description="The original's reward, or one with two bugs fixed.")
    tagger: str = Field(
        default="lexical", description="Finds nouns for the type reward: lexical (not official), or spacy:MODEL."
    )
    candidates: CandidateMode = Field(
        default=CandidateMode.STABLE, description="stable: all that can be clicked. compat: the reference's random sample."
    )
    observation: Literal["text_rich", "text", "url", "brief"] = Field(
        default="text_rich", description="What an observation shows; brief is leap's own, for small students."
    )
    shopper: Literal["titles", "values"] = Field(
        default="titles",
        description="The unprivileged expert goes by titles' words, or opens results in turn until one has every value named.",
    )
    patience: int | None = Field(
        default=15, ge=3, description="Shopper and teacher buy within so many actions; set it to the horizon. Null: no hurry."
    )

    @model_validator(mode="before")
    @classmethod
    def _a_path_is_of_official_files(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("path") is not None:
            return {"source": "official", **values}
        return values


class WebshopEnvironment(Environment[WebshopConfig]):
    """Shopping on the web (Yao et al. 2022): buy the product that an instruction describes.

    The splits, and which protocol each belongs to, are in `leap_worlds.webshop.splits`.
    """

    name: ClassVar[str] = "webshop"
    Config: ClassVar[type[EnvironmentConfig]] = WebshopConfig
    blocking: ClassVar[bool] = False
    test_splits: ClassVar[frozenset[str]] = TEST_SPLITS
    grammar = Line()
    gold_splits: ClassVar[tuple[str, ...]] = ("all",)

    def __init__(self, config: WebshopConfig | None = None) -> None:
        super().__init__(config)
        check_tagger(self.config.tagger)
        self._worlds: dict[World, ShopWorld] = {}
        self._oracles: dict[int, Oracle] = {}

    @cached_property
    def _tagger(self) -> Tagger:
        """Loaded when a world is opened: a recipe can be read where its tagger is not installed."""
        return load_tagger(self.config.tagger)

    def prepare(self, progress: Progress | None = None) -> None:
        """Makes the catalogue's store and search index, or finds them in leap's cache."""
        self.world(World.HUMAN, progress)

    @classmethod
    def doctor(cls) -> list[Finding]:
        try:
            return [Finding(True, f"official files in {find_files(data_folder(), None).products.parent}")]
        except PrerequisiteError as error:
            return [Finding(False, f"{error} Generated catalogues need none.")]

    def fetch_data(self, progress: Progress | None = None, *, source: str | None = None) -> list[Finding]:
        """Fetches the official files that are missing, makes store and index, and checks products, search and goals."""
        if self.config.source != "official":
            official = WebshopEnvironment(self.config.model_copy(update={"source": "official"}))
            return official.fetch_data(progress, source=source)
        folder, products = data_folder(self.config.path), self.config.products
        files, by_hand = official_files(products), expanded(source) if source is not None else None
        came = fetch(files, folder, source=by_hand, progress=progress)
        findings = [Finding(True, f"{folder}: {', '.join(came)} fetched" if came else f"{folder}: every file is there")]
        return findings + check(self.world(World.HUMAN, progress), products=products)

    def world(self, which: World, progress: Progress | None = None) -> ShopWorld:
        """Returns the catalogue with its goals and prices; opened once."""
        if which not in self._worlds:
            self._worlds[which] = open_world(
                self.files(which, progress),
                human=which is World.HUMAN,
                seed=self.config.seed,
                tagger=self._tagger,
                mode=self.config.reward,
                progress=progress,
            )
        return self._worlds[which]

    def files(self, which: World, progress: Progress | None = None) -> CatalogueFiles:
        """Returns the files that a world is made from; generated ones are kept in leap's cache by their settings."""
        folder = data_folder(self.config.path)
        if self.config.source == "generated":
            folder = cache_dir() / "webshop" / "generated" / fingerprint(self.config.generator)
            write_catalogue(self.config.generator, folder, progress=progress)
        return find_files(folder, SMALL_PRODUCTS if which is World.SMALL else self.config.products)

    def split(self, name: str) -> Split:
        """Returns a split by its name; an error where this catalogue is not of its protocol."""
        if name not in SPLITS:
            raise unknown_split(self.name, name, SPLITS)
        split = SPLITS[name]
        goals = len(self.world(split.world).goals)
        if split.goals is not None and goals != split.goals:
            raise PrerequisiteError(
                f"split {name!r} means {split.goals:,} goals of the official catalogue, and this one has {goals:,}; its numbers "
                "would not be comparable. On other catalogues use train, eval, test, synthetic_train or synthetic."
            )
        return split

    def tasks(self, split: str, *, limit: int | None = None, seed: int = 0) -> list[Task]:
        chosen = self.split(split)
        world = self.world(chosen.world)
        indices = chosen.indices(len(world.goals))
        if not indices:
            raise PrerequisiteError(
                f"split {split!r} begins at goal {chosen.start} and this catalogue has {len(world.goals)} goals of its kind"
            )
        return [
            Task(
                env=self.name,
                split=split,
                id=f"{chosen.world.value}/{goal.index}",
                instruction=goal.instruction,
                kind=goal.category,
                seed=self.config.seed,
            )
            for goal in (world.goals[index] for index in sampled(indices, split, limit, seed))
        ]

    def goal(self, task: Task) -> Goal:
        """Returns the task's goal: all that a teacher may know of it; an error where this catalogue has it not."""
        goals, number = self.world(self.split(task.split).world).goals, task.id.rpartition("/")[2]
        if number.isdecimal() and len(number) < 10 and int(number) < len(goals):
            goal = goals[int(number)]
            if goal.instruction == task.instruction:
                return goal
        raise PrerequisiteError(
            f"task {task.id!r} is {task.instruction[:80]!r}, but goal {number} of the catalogue at hand is another. The "
            "task was made with other files or another environment.options.seed."
        )

    def why_unsolvable(self, task: Task) -> str:
        """Returns what the best purchase lacks, where none that can be found brings all that the goal asks for."""
        with opened(self, task) as session:
            return session.privileged().facts["missing"]

    def start(self, task: Task) -> WebshopSession:
        goal, world = self.goal(task), self.world(self.split(task.split).world)
        oracle = self._oracles.setdefault(id(world), Oracle(world))
        return WebshopSession(oracle, goal, task, self.config)

    @property
    def tutor(self) -> WebshopTutor:
        return WebshopTutor(self)

    def valid(self, action: str, observation: Observation) -> bool:
        """Beside what is listed, any search where there is a search bar (but not the placeholder that stands for them)."""
        listed = observation.admissible or ()
        if action in listed or action == SEARCH:
            return action != SEARCH
        name, argument = parse_action(action)
        return SEARCH in listed and name == "search" and bool(argument.strip())

    def entities(self, text: str) -> set[str]:
        """Returns numbers of products, prices, and titles that stand alone: on a line, in quotes, in an action."""
        found = {match.lower() for match in _THING.findall(text)}
        store = self.world(World.HUMAN).shop.store
        for piece in _PIECE.split(text):
            title = _PRICE_BEHIND.sub("", piece).strip(" .").lower()
            if len(title) > _SHORTEST_TITLE and store.titled(title) is not None:
                found.add(title)
        return found

    def vocabulary(self) -> list[str]:
        """Words of the shop and of the training goals: what a scratch student's tokenizer should keep whole."""
        world = self.world(World.HUMAN)
        texts = {" search[", "search page\n", "bought", "]", "you have clicked ."}
        for place in range(min(len(world.shop.store), _READ)):
            product = world.shop.store[place]
            shown = [product.title, *product.options, *(v for values in product.options.values() for v in values)]
            texts.update(f" {text.lower()}" for text in shown)
            texts.update(f"\n{text.lower()}, {product.price}" for text in (product.title, *product.bullets))
        for split in (SPLITS["train"], SPLITS["verl-agent_train"]):
            if split.world is World.SMALL and (self.config.source, self.config.products) != ("official", SMALL_PRODUCTS):
                continue  # no goals are made up for a catalogue of another size
            goals = self.world(split.world).goals
            texts.update(f" {goals[index].instruction}" for index in split.indices(len(goals))[:_READ])
        return sorted(texts)

    def names(self) -> list[str]:
        """Returns what products are called, have and come in, where it takes several words."""
        store, counts = self.world(World.HUMAN).shop.store, Counter[str]()
        for place in range(min(len(store), _READ)):
            product = store[place]
            values = (value for values in product.options.values() for value in values)
            counts.update((product.query, *product.attributes, *product.options, *values))
        several = [name for name in counts if not name.isalnum()]
        return sorted(several, key=lambda name: (-counts[name], name))[:_NAMES]

    def prompt_directory(self) -> Path:
        return Path(__file__).parent / "prompts"

    def versions(self) -> dict[str, str]:
        config, world = self.config, next(iter(self._worlds.values()), None)
        official = self._tagger.official and config.reward is RewardMode.UPSTREAM
        products = f", {len(world.shop.store)} products, data {world.shop.store.manifest.key}" if world else ""
        return {
            "webshop": f"{config.observation}, {config.candidates.value} candidates, prices by seed {config.seed}{products}",
            "webshop reward": f"{config.reward.value}, tagger {self._tagger.name}, {'' if official else 'not '}official",
        }


class WebshopTutor(Tutor[WebshopEnvironment]):
    """The unprivileged shopper, and the same shopper with as much of the goal as the privilege level allows."""

    def expert(self, task: Task) -> Shopper | Checker:
        config = self.environment.config
        return (Checker if config.shopper == "values" else Shopper)(config.patience)

    def correct(self, history: History, privileged: PrivilegedState, privilege: int) -> Decision | None:
        if privilege == 0 and not privileged.hopeless:
            return self.expert(history.task).decide(history)
        return teach(history, privileged, privilege, patience=self.environment.config.patience)


class WebshopSession(Session):
    """One visit to the shop. It ends with a purchase; what is left without one scores 0."""

    blocking: ClassVar[bool] = False

    def __init__(self, oracle: Oracle, goal: Goal, task: Task, config: WebshopConfig) -> None:
        self._oracle = oracle
        self._mode = config.candidates
        self._observation = config.observation
        self._rng = random.Random(f"{task.key}/candidates")
        self.visit: Visit = oracle.world.shop.visit(goal, rng=random.Random(f"{task.key}/shop"))
        self._listed: tuple[str, ...] = ()
        self._nothing = {part: 0.0 for part in PARTS if part != "option" or goal.options}

    def observe(self) -> Observation:
        visit = self.visit
        stable = self._mode is CandidateMode.STABLE
        candidates = stable_candidates(visit) if stable else compat_candidates(visit, self._rng)
        self._listed = candidates
        return Observation.model_construct(text=_SHOWN[self._observation](visit), admissible=candidates)

    def act(self, action: str) -> Outcome:
        bought = self.visit.act(plain_action(action, self.visit, self._mode))
        shown = self.observe()
        if bought is None:
            return Outcome(shown, parts=self._nothing)
        total = bought.total
        return Outcome(shown, reward=total, done=True, success=total == 1.0, score=total, parts=bought.parts)

    def privileged(self) -> PrivilegedState:
        return describe(self.visit, self._oracle, self._listed, self._mode)


def brief(visit: Visit) -> str:
    """The page at hand in few words and lower case, for small students: `text_rich` without what is always the same.

    The instruction and the buttons are left out (they are in the prompt, or among the admissible actions), and so are
    numbers of products whose title names them. This mode is leap's own; the published protocols show `text_rich`.
    """
    if visit.done:
        return "bought"
    if visit.page.search_bar:
        return "search page"
    lines = [f"you have clicked {value}." for value in visit.options.values()]
    if visit.asin is None:
        lines.append(f"results, page {visit.number}:")
        for asin, title in named_offers(visit).items():
            product = visit.shop.product(asin)
            name = title if title is not None else f"{asin} {product.title}"
            lines.append(f"{name}, {product.price}")
    else:
        product = visit.shop.product(visit.asin)
        lines.append(f"{product.title}, {product.price}")
        if any(kind is Kind.OPTION for kind, _ in visit.page.nodes):
            lines += [f"{name}: {', '.join(values)}" for name, values in product.options.items()]
        elif "buy now" not in visit.page.clickables:
            lines += [text for kind, text in visit.page.nodes[2:] if kind is Kind.TEXT]
    return "\n".join(lines).lower()


_SHOWN: dict[str, Callable[[Visit], str]] = {
    "text_rich": Visit.text_rich,
    "text": Visit.text,
    "url": lambda visit: visit.url,
    "brief": brief,
}
"""What each mode of observation shows of a visit."""
