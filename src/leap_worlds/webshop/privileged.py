"""The privileged state of a WebShop task: what the goal asks for, an example of a product, and what things are worth now."""

from __future__ import annotations

from leap.core import PrivilegedState
from leap_worlds.webshop.candidates import CandidateMode, named_offers, plain_action
from leap_worlds.webshop.goals import NO_LIMIT
from leap_worlds.webshop.oracle import Oracle, meant, worth
from leap_worlds.webshop.shop import PER_PAGE, Visit
from leap_worlds.webshop.world import ShopWorld


def describe(
    world: ShopWorld,
    visit: Visit,
    *,
    oracle: Oracle | None = None,
    listed: tuple[str, ...] = (),
    mode: CandidateMode = CandidateMode.STABLE,
) -> PrivilegedState:
    """Returns the privileged state at this moment of a visit.

    The text has the paper's parts: instruction, required attributes and options, price limit, example product. Facts are

    - `asin`, `title`: the example product; `attributes`, `options`, `price_upper`: what the goal asks for;
    - `meant`: the shop's names of what the instruction asks for;
    - `offers`: the most that each product of the last results page can bring, by its title, or its number;
    - `best`, `here`: the most that can be bought, and that the present product can bring (None elsewhere);
    - `now`: what buying at once would bring; `values`: what the present product's options should be, by name;
    - `missing`: why the best is less than 1, for people.

    Args:
        world: Where the visit is.
        visit: The visit.
        oracle: Remembers what it worked out for this world; a new one if None.
        listed: The admissible actions, so that the plan's first action is one of them.
        mode: How they name products.
    """
    goal = visit.goal
    product, most, _ = (oracle := oracle or Oracle(world)).target(goal)
    example = world.shop.product(goal.asin)
    offers: dict[str, float] = {}
    names = named_offers(visit) if visit.asin is None else {}
    if visit.number is not None and visit.number >= 1 and not visit.page.search_bar:
        first = (visit.number - 1) * PER_PAGE
        for place in visit.results[first : first + PER_PAGE]:
            offer = world.shop.product_at(place)
            reward = worth(world, goal, offer).reward
            offers[offer.asin.lower()] = reward
            title = names.get(offer.asin, offer.title.lower())
            if title is not None:
                offers[title] = reward
    here = now = None
    values: dict[str, str] = {}
    if visit.asin is not None and not visit.done:
        present = world.shop.product(visit.asin)
        value = worth(world, goal, present)
        here, values = value.reward, value.values
        now = world.judge(present, goal, visit.options).total
    plan = oracle.plan(visit)
    if plan and listed:
        plan = (next((action for action in listed if plain_action(action, visit, mode) == plan[0]), plan[0]), *plan[1:])
    limit = "none" if goal.price_upper >= NO_LIMIT else f"{goal.price_upper:.2f} dollars"
    lines = [
        f"Task: {goal.instruction}",
        f"Required attributes: {', '.join(goal.attributes) or 'none'}",
        f"Required options: {', '.join(goal.option_values) or 'none'}",
        f"Price limit: {limit}",
        f"Example product: {goal.name}",
    ]
    facts = {
        "asin": goal.asin,
        "title": goal.name,
        "attributes": list(goal.attributes),
        "options": list(goal.option_values),
        "price_upper": goal.price_upper,
        "meant": meant(goal, example),
        "offers": offers,
        "best": most.reward,
        "here": here,
        "now": now,
        "values": values,
        "missing": "" if most.reward == 1.0 else _missing(world, visit, product.asin, most.values),
    }
    return PrivilegedState(text="\n".join(lines), facts=facts, plan=plan, hopeless=plan is None)


def _missing(world: ShopWorld, visit: Visit, asin: str, values: dict[str, str]) -> str:
    """Returns what the best purchase lacks."""
    bought = world.judge(world.shop.product(asin), visit.goal, values)
    lacks = [
        ("kind", bought.type < 1.0),
        ("attributes", bought.attribute < 1.0),
        ("options", bought.option is not None and bought.option < 1.0),
        ("price", bought.price < 1.0),
    ]
    return f"the best purchase brings {bought.total:.2f}; not met: {', '.join(name for name, lack in lacks if lack)}"
