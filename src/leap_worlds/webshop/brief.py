"""Observations in few words, for small students: what `text_rich` shows, without what is the same on every page.

The instruction and the buttons are left out (they are in the prompt, or among the admissible actions), and so are numbers of
products whose title names them. This mode is leap's own; the published protocols show `text_rich`.
"""

from __future__ import annotations

from leap_worlds.webshop.candidates import named_offers
from leap_worlds.webshop.pages import Kind
from leap_worlds.webshop.shop import Visit


def brief(visit: Visit) -> str:
    """Returns the page at hand, in lower case."""
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
