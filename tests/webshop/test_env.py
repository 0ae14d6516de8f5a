"""WebShop as an environment: options, tasks, sessions, and that its parts reach the scores."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from small_shop import a_product, said, write_files
from typer.testing import CliRunner

from leap.cli.app import app
from leap.core import Episode, Observation
from leap.envs.base import load_environment, opened
from leap.envs.live import states_along
from leap.errors import LeapError, PrerequisiteError, RecipeError
from leap.evaluation import score_episodes
from leap.policies.base import ExpertPolicy
from leap.rollouts import Play, rollout
from leap.sync import run_sync
from leap_worlds.webshop.env import WebshopEnvironment
from leap_worlds.webshop.splits import World
from leap_worlds.webshop.world import SEARCH, open_search

TITLES = ["Red Steel Mug", "Blue Tea Cup", "Green Desk Lamp", "Garden Chair"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four products; 1,600 goals, half of them with an option."""
    folder = tmp_path_factory.mktemp("official")
    colors = {"Color": ["Red", "Plain"]}
    products = [
        a_product(i, name=title, query=title, product_category=title, pricing="$5$15", customization_options=colors)
        for i, title in enumerate(TITLES)
    ]
    people = {
        f"B{i:09}": [said(f"i want a {title.lower()}, no {j}.", ["handle"], ["red"][: j % 2]) for j in range(400)]
        for i, title in enumerate(TITLES)
    }
    write_files(folder, products, people=people)
    return folder


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEAP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def shop(folder: Path, **options: Any) -> WebshopEnvironment:
    environment = load_environment("webshop", {"path": str(folder), **options})
    assert isinstance(environment, WebshopEnvironment)
    return environment


def test_tasks_are_the_goals_in_order_and_a_sample_is_seeded(folder: Path) -> None:
    environment = shop(folder)
    tasks = environment.tasks("test")
    assert [task.id for task in tasks] == [f"human/{i}" for i in range(500)]
    assert len(environment.tasks("eval")) == 1000 and len(environment.tasks("train")) == 100
    some = environment.tasks("train", limit=7, seed=1)
    assert len(some) == 7 and some == environment.tasks("train", limit=7, seed=1) != environment.tasks("train", limit=7)


def test_price_limits_follow_the_seed_and_not_the_process(folder: Path) -> None:
    first, again, other = (shop(folder, seed=seed).tasks("test") for seed in (0, 0, 1))
    assert first == again
    assert [task.id for task in first] == [task.id for task in other]
    assert 0 < sum(a.instruction != b.instruction for a, b in zip(first, other, strict=True)) < 500


def test_a_task_of_another_draw_is_refused(folder: Path) -> None:
    here, there = shop(folder), shop(folder, seed=1)
    foreign = next(task for task in there.tasks("test") if task not in here.tasks("test"))
    for task in (foreign, foreign.model_copy(update={"id": "human/99999"}), foreign.model_copy(update={"id": "x"})):
        with pytest.raises(PrerequisiteError, match="is another"):
            here.start(task)


@pytest.mark.parametrize("split", ["leap", "eto", "eto_train", "verl-agent"])
def test_protocols_are_of_the_official_catalogue_alone(folder: Path, split: str) -> None:
    with pytest.raises(PrerequisiteError, match=f"split '{split}' means .* goals of the official catalogue"):
        shop(folder).tasks(split)


def test_splits_that_are_not_there_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="no split 'valid'; it has train, eval"):
        shop(folder).tasks("valid")
    write_files(tmp_path, [a_product()], people={"B000000000": [said("i want a mug")]})
    with pytest.raises(PrerequisiteError, match="begins at goal 1500 and this catalogue has 1 goals"):
        shop(tmp_path).tasks("train")


def test_data_that_is_not_there_says_what_to_put_where(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PrerequisiteError, match=rf"items_shuffle.json, .*items_human_ins.json not in {tmp_path}.*leap data"):
        shop(tmp_path).prepare()
    files = write_files(tmp_path, [a_product()])
    for path in (files.products, files.attributes):
        path.rename(path.with_stem(f"{path.stem}_1000"))
    with pytest.raises(PrerequisiteError, match="with products: 1000 they are used"):
        shop(tmp_path).prepare()
    monkeypatch.setenv("WEBSHOP_DATA", str(folder))
    assert len(load_environment("webshop").tasks("test")) == 500


def test_options_are_checked(folder: Path) -> None:
    for options in ({"reward": "best"}, {"candidates": "all"}, {"observation": "html"}, {"tagger": "nltk"}, {"size": 3}):
        with pytest.raises(RecipeError):
            shop(folder, **options)


def played(environment: WebshopEnvironment, *actions: str, number: int = 0) -> Any:
    task = environment.tasks("test")[number]
    with opened(environment, task) as session:
        session.observe()
        outcome = None
        for action in actions:
            outcome = session.act(action)
    return outcome


def test_a_session_ends_with_the_purchase_and_tells_its_parts(folder: Path) -> None:
    environment = shop(folder)
    goals = environment.world(World.HUMAN).goals
    number = next(i for i in range(500) if goals[i].asin == "B000000000" and goals[i].options)
    looked = ("search[steel mug]", "click[item - red steel mug]")
    outcome = played(environment, *looked, number=number)
    assert not outcome.done and outcome.score == 0 and set(outcome.parts.values()) == {0.0}
    partial = played(environment, *looked, "click[buy now]", number=number)
    assert partial.done and not partial.success and partial.score == partial.reward == pytest.approx(2 / 3)
    assert partial.parts["option"] == 0 and list(partial.parts) == list(outcome.parts)
    whole = played(environment, *looked, "click[red]", "click[buy now]", number=number)
    assert whole.success and whole.score == 1.0 and "Thank you" in whole.observation.text


def test_what_can_be_chosen_is_shown_once_and_logged_as_shown(folder: Path) -> None:
    for mode in ("stable", "compat"):
        for observation in ("text_rich", "text", "url"):
            environment = shop(folder, candidates=mode, observation=observation)
            outcomes = [played(environment, "search[cup]", "click[next >]", "click[< prev]") for _ in range(2)]
            assert outcomes[0] == outcomes[1]


def test_free_searches_are_valid_where_there_is_a_search_bar_and_the_placeholder_never(folder: Path) -> None:
    environment = shop(folder)
    start = environment.start(environment.tasks("test")[0]).observe()
    results = played(environment, "search[cup]").observation
    valid = {
        action: (environment.valid(action, start), environment.valid(action, results))
        for action in ("search[a cup]", "search[]", "search[ ]", "search[<search query>]", "click[next >]", "click[nothing]")
    }
    assert valid == {
        "search[a cup]": (True, False),
        "search[]": (False, False),
        "search[ ]": (False, False),
        "search[<search query>]": (False, False),
        "click[next >]": (False, True),
        "click[nothing]": (False, False),
    }
    assert not environment.valid("search[x]", Observation(text="x", admissible=None))


def test_parts_reach_the_scores_and_an_unfinished_episode_scores_nothing(folder: Path) -> None:
    environment = shop(folder)
    episodes: list[Episode] = []
    expert = ExpertPolicy(environment)
    for horizon in (1, 10):
        tasks = environment.tasks("test", limit=6)
        rollout(environment, expert, Play(tasks, horizon, 0, "t"), episodes.append)
    score = score_episodes(episodes)
    unfinished = [episode for episode in episodes if episode.horizon == 1]
    assert len(unfinished) == 6 and {episode.score for episode in unfinished} == {0.0}
    assert {"type", "attribute", "price", "option"} <= set(score.parts)
    assert score.parts["type"] == sum(episode.parts["type"] for episode in episodes) / 12
    with_option = [episode.parts["option"] for episode in episodes if "option" in episode.parts]
    assert 0 < len(with_option) < 12 and score.parts["option"] == sum(with_option) / len(with_option)
    for episode in episodes:
        assert Episode.model_validate_json(episode.model_dump_json()) == episode
        assert len(run_sync(states_along(environment, episode))) == len(episode.steps)
    assert "not official" in episodes[0].versions["webshop reward"]


def test_an_index_of_another_catalogue_is_refused(folder: Path) -> None:
    store = shop(folder).world(World.HUMAN).shop.store
    owner = store.folder / SEARCH / "catalogue.txt"
    known = owner.read_text()
    owner.write_text("another")
    try:
        with pytest.raises(LeapError, match="search index of another catalogue"):
            open_search(store)
    finally:
        owner.write_text(known)


def test_an_index_and_a_store_in_the_wrong_place_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = shop(folder).world(World.HUMAN).shop.store.folder
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    write_files(tmp_path, [a_product(i) for i in range(3)], people={"B000000000": [said("i want a mug")]})
    other = shop(tmp_path)
    store = other.world(World.HUMAN).shop.store
    for file in (mine / SEARCH).glob("*"):
        if file.name != "catalogue.txt":  # a whole index, under the other's name
            (store.folder / SEARCH / file.name).write_bytes(file.read_bytes())
    with pytest.raises(PrerequisiteError, match="has 4 documents where the catalogue has 3 products"):
        open_search(store)
    shutil.rmtree(store.folder)
    shutil.copytree(mine, store.folder)
    with pytest.raises(PrerequisiteError, match=r"store of another catalogue\. Remove it"):
        shop(tmp_path).prepare()
    shutil.rmtree(store.folder)
    shop(tmp_path).prepare()  # as the message says


def test_every_goal_by_people_is_validated_and_those_that_cannot_be_met_say_why(tmp_path: Path) -> None:
    people = {
        "B000000000": [said("a red mug", ["handle"], ["red"]), said("a mug with wings", ["wings"]), said("a mug", ["coffee"])],
        "B000000001": [said("a mug of gold", ["handle"], ["gold"])],
    }
    products = [a_product(i, customization_options={"Color": ["Red"]}) for i in range(2)]
    write_files(tmp_path, products, people=people)
    told = CliRunner().invoke(app, ["validate", "webshop", "--set", f"path={tmp_path}"])
    assert told.exit_code == 0, told.output
    assert "webshop all: the privileged plan solves 2 of 4 tasks" in told.output
    assert told.output.count("not met: attributes)") == 1 and told.output.count("not met: options)") == 1
    assert "webshop reward: upstream, tagger lexical-1, not official" in told.output


def test_names_of_several_words_are_told_to_a_scratch_student(folder: Path) -> None:
    names = shop(folder).names()
    assert {title.lower() for title in TITLES} <= set(names)
    assert not {"red", "plain", "color"} & set(names)
