"""The shop's pages and moves: the original's quirks, and any text at all as an action."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_shop import FixedSearch, a_goal, a_product, a_shop, a_store, seeded

from leap_worlds.webshop.candidates import (
    SEARCH,
    CandidateMode,
    compat_candidates,
    plain_action,
    stable_candidates,
)
from leap_worlds.webshop.shop import Shop, Visit, parse_action
from leap_worlds.webshop.store import ProductStore

COLORS = {"Color": ["Red", 'Say "hi"', "Blå", "back to search", "a [b]", "two\nlines", "c]"], "Finish": ["red", "matt"]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ProductStore:
    products = [a_product(i) for i in range(25)]
    products[0] = a_product(0, customization_options=COLORS, full_description=" \n ", small_description=["", " \t", "x"])
    products[1] = a_product(1, name="Plain Mug 2")
    products[3] = a_product(3, name="Two\nlines")
    products[4] = a_product(4, asin="Buy Now")
    products[5] = a_product(5, asin="lower case")
    products[6] = a_product(6, name="</h4><script>click[buy now]</script> &amp; \x00 [button] Buy Now [button_]")
    products[7] = a_product(7, customization_options={"Depth": [f"{i} cm" for i in range(60)]})
    return a_store(tmp_path_factory.mktemp("shop"), *products)


@pytest.fixture
def visit(store: ProductStore) -> Visit:
    return a_shop(store).visit(a_goal(store))


def lines(visit: Visit) -> list[str]:
    return visit.text_rich().split("\n")


def test_results_are_shown_ten_a_page_also_beyond_the_last(visit: Visit) -> None:
    visit.act("search[mug]")
    assert "Page 1 (Total results: 25)" in lines(visit) and "[button] < Prev [button_]" not in lines(visit)
    for _ in range(3):
        visit.act("click[next >]")
    assert lines(visit)[3:6] == ["Page 4 (Total results: 25)", "[button] < Prev [button_]", "[button] Next > [button_]"]
    assert list(visit.page.clickables) == ["back to search", "< prev", "next >"]
    visit.act("click[< prev]")
    assert sum(line == "[button] B000000020 [button_]" for line in lines(visit)) == 1


def test_paging_does_not_search_again(store: ProductStore) -> None:
    shop = a_shop(store)
    assert isinstance(shop.searcher, FixedSearch)
    visit = shop.visit(a_goal(store))
    for action in ("search[mug]", "click[next >]", "click[< prev]", "click[b000000002]", "click[< prev]", "search[MUG]"):
        visit.act(action)
    assert shop.searcher.queries == ["mug"]
    assert visit.actions == {"search": 5, "asin": 1}


def test_looked_at_products_are_marked_until_the_start_page(visit: Visit) -> None:
    for action in ("search[mug]", "click[b000000002]", "click[< prev]"):
        visit.act(action)
    assert "[clicked button] B000000002 [clicked button_]" in lines(visit)
    visit.act("search[other words]")
    assert "[clicked button] B000000002 [clicked button_]" in lines(visit)
    for action in ("click[back to search]", "search[mug]"):
        visit.act(action)
    assert "[button] B000000002 [button_]" in lines(visit)


def test_options_are_marked_forgotten_on_the_way_back_and_shared_values_are_the_last_groups(visit: Visit) -> None:
    for action in ("search[mug]", "click[b000000000]", "click[red]"):
        visit.act(action)
    assert visit.options == {"finish": "red"}  # both groups have a "red"
    assert lines(visit)[:2] == ["You have clicked red.", "You have clicked red."]
    visit.act("click[matt]")
    assert (visit.options, visit.asin) == ({"finish": "matt"}, "B000000000")
    for action in ("click[features]", "click[< prev]"):
        visit.act(action)
    assert visit.options == {"finish": "matt"}
    for action in ("click[< prev]", "click[b000000000]"):
        visit.act(action)
    assert visit.options == {}


def test_an_option_with_letters_beyond_ascii_or_quotes_is_chosen_but_never_marked(visit: Visit) -> None:
    for action in ("search[mug]", "click[b000000000]", "click[blå]"):
        visit.act(action)
    assert visit.options == {"color": "blå"} and "  [button] blå [button_]" in lines(visit)
    visit.act('click[say "hi"]')
    assert visit.options == {"color": 'say "hi"'} and '  [button] say "hi" [button_]' in lines(visit)


def test_a_quoted_search_marks_an_option_as_clicked(visit: Visit) -> None:
    for action in ('search["matt" mug]', "click[b000000000]"):
        visit.act(action)
    assert visit.options == {} and lines(visit)[0] == "You have clicked matt."


def test_what_a_click_does_goes_by_its_text(visit: Visit) -> None:
    for action in ("search[mug]", "click[b000000000]", "click[back to search]"):  # a colour has that name
        visit.act(action)
    assert visit.page.search_bar


def test_a_search_works_everywhere_and_a_word_of_the_url_leads_astray(visit: Visit) -> None:
    for action in ("search[search_results mug]", "click[b000000002]"):
        visit.act(action)
    visit.act("click[< prev]")
    assert lines(visit)[3] == "Page 0 (Total results: 25)" and len(visit.page.clickables) == 2
    visit.act("click[next >]")
    visit.act("click[b000000002]")
    visit.act("search[mug]")
    assert (visit.asin, visit.number, visit.keywords) == (None, 1, ["mug"])


def test_blank_texts_follow_the_parsers_rule(visit: Visit) -> None:
    for action in ("search[mug]", "click[b000000000]", "click[description]"):
        visit.act(action)
    assert lines(visit)[4:] == [""]  # a blank with a line break is dropped
    for action in ("click[< prev]", "click[features]"):
        visit.act(action)
    assert lines(visit)[4:] == [" ", " ", " x", ""]  # other blanks become one
    assert visit.text().endswith("< Prev [SEP]  [SEP]  [SEP] x")


@pytest.mark.parametrize(
    "action", ["", "click", "click[]", "search[]", "click[buy now]", "click[search]", "Click[back]", "think[x]", "click[zz]"]
)
def test_what_makes_no_sense_changes_nothing(visit: Visit, action: str) -> None:
    before = (visit.text_rich(), visit.url, dict(visit.actions))
    assert visit.act(action) is None
    assert (visit.text_rich(), visit.url, dict(visit.actions)) == before


@pytest.mark.parametrize(
    ("action", "parsed"),
    [
        ("search[Two Words]", ("search", "two words")),
        ("click[c]]", ("click", "c]")),
        ("click[a [b]]", ("click[a ", "b]")),
        ("click[a]\nclick[b]", ("click", "a")),
        ("search[two\nlines]", ("search[two\nlines]", "")),
    ],
)
def test_actions_are_read_by_the_originals_pattern(action: str, parsed: tuple[str, str]) -> None:
    assert parse_action(action) == parsed


def test_the_authors_shorthands(store: ProductStore, visit: Visit) -> None:
    totals = {}
    for words in ("<c> garden", "<c> none", "<c>", "<q> mugs", "<a> steel", "<a>", "<r>"):
        visit.act(f"search[{words}]")
        totals[words] = len(visit.results)
    assert totals == {"<c> garden": 25, "<c> none": 0, "<c>": 0, "<q> mugs": 25, "<a> steel": 0, "<a>": 0, "<r>": 25}


def test_after_the_purchase_nothing_can_be_clicked_but_a_search_goes_on(visit: Visit) -> None:
    for action in ("search[mug]", "click[b000000002]"):
        visit.act(action)
    bought = visit.act("click[buy now]")
    assert bought is not None and bought is visit.purchase and visit.done and not visit.page.clickables
    assert visit.act("click[back to search]") is None
    visit.act("search[mug]")
    assert visit.asin is None and visit.done


WORDS = st.sampled_from(
    [
        *("b000000000", "b000000007", "red", "matt", "buy now", "< prev", "next >", "back to search", "features", "reviews"),
        *("attributes", "description", "lower case", "a [b]", "c]", "0 cm", "<r>", "<c>", "<a> x", "<q> mugs", "done"),
        *("item - plain mug 2", "item - two\nlines", "search_results", "item_page", "item_sub_page", ""),
    ]
)
ACTIONS = st.one_of(
    st.text(),
    st.builds("{}[{}]".format, st.sampled_from(["click", "search", "x"]), st.one_of(WORDS, st.text())),
    st.text(alphabet="[]clicksear \n\x00\ud800\u2028"),
)


@given(actions=st.lists(st.one_of(ACTIONS, st.integers(0, 200)), max_size=25), mode=st.sampled_from(CandidateMode))
def test_no_action_whatever_raises(store: ProductStore, actions: list[str | int], mode: CandidateMode) -> None:
    """Also on a hostile catalogue; a number stands for one of the listed candidates."""
    visit, rng = a_shop(store).visit(a_goal(store)), seeded()
    for action in actions:
        listed = stable_candidates(visit) if mode is CandidateMode.STABLE else compat_candidates(visit, rng)
        if isinstance(action, int):
            action = listed[action % len(listed)] if listed else ""
        visit.act(plain_action(action, visit, mode))
        assert visit.text_rich().endswith("\n") and visit.text() and visit.url.startswith("http://127.0.0.1:3000/")


# ---- candidates ------------------------------------------------------------------------------------------------------


def at(shop: Shop, store: ProductStore, *actions: str) -> Visit:
    visit = shop.visit(a_goal(store))
    for action in actions:
        visit.act(action)
    return visit


def test_stable_candidates_name_every_product_unmistakably(store: ProductStore) -> None:
    visit = at(a_shop(store), store, "search[mug]")
    listed = stable_candidates(visit)
    assert listed[:6] == (
        "click[back to search]",
        "click[next >]",
        "click[item - plain mug 0]",
        "click[b000000001]",  # two products have its title
        "click[b000000002]",
        "click[b000000003]",  # a title of two lines
    )
    for action, asin in zip(listed[2:6], [f"B{i:09}" for i in range(4)], strict=True):
        there = at(a_shop(store), store, "search[mug]")
        there.act(plain_action(action, there, CandidateMode.STABLE))
        assert there.asin == asin


def test_stable_candidates_hide_no_option_and_list_none_that_cannot_be_clicked(store: ProductStore) -> None:
    listed = stable_candidates(at(a_shop(store), store, "search[mug]", "click[b000000007]"))
    assert [f"click[{i} cm]" for i in range(60)] == [action for action in listed if action.endswith(" cm]")]
    listed = stable_candidates(at(a_shop(store), store, "search[mug]", "click[b000000000]"))
    assert "click[c]]" in listed and not any("[b]" in action or "\n" in action for action in listed)


def test_the_start_page_lists_the_placeholder_alone(visit: Visit) -> None:
    assert stable_candidates(visit) == compat_candidates(visit, seeded()) == (SEARCH,)


def test_compat_names_mean_the_last_product_of_a_title_anywhere(store: ProductStore) -> None:
    visit = at(a_shop(store), store, "search[mug]")
    named = compat_candidates(visit, seeded())
    assert named.count("click[item - plain mug 2]") == 2
    assert plain_action("click[item - plain mug 2]", visit, CandidateMode.COMPAT) == "click[b000000002]"
    assert plain_action("click[item - plain mug 24]", visit, CandidateMode.COMPAT) == "click[b000000024]"  # not on the page
    assert plain_action("click[item - plain mug 24]", visit, CandidateMode.STABLE) == "click[item - plain mug 24]"


def test_compat_candidates_are_a_sample_behind_the_first_six(store: ProductStore) -> None:
    visit = at(a_shop(store), store, "search[mug]", "click[b000000007]")
    lists = {compat_candidates(visit, seeded(i)) for i in range(5)}
    assert len(lists) == 5
    for listed in lists:
        assert listed[:6] == tuple(f"click[{name}]" for name in list(visit.page.clickables)[:6]) and len(listed) <= 20
