"""The shortest way to win from any state of a game, or that there is none.

Planning in ALFWorld needs no general search. Every plan that is not wasteful visits a few places in a fixed order: put
down what is in the way, take a wanted thing, treat it, put it where it is wanted (for "two", twice). What is open is
the only other thing that matters. So a plan is a short row of *stops*, each with a list of candidates, and dynamic
programming over the rows finds the best choice in a fraction of a millisecond, where fast-downward's blind search takes
seconds or does not end.

Length counts commands, one each, as the real engine's planner does (no metric is given in the games, so fast-downward
minimises steps too).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from leap_worlds.alfworld.engine import Engine
from leap_worlds.alfworld.game import APPLIANCES, Game, State


class _Stop(NamedTuple):
    """Something done at a place.

    Attributes:
        verb: take, put, clean, heat, cool, use, or "" for just being there.
        thing: What with; "" for what is in hand by then.
        place, opens: The receptacle, and whether it must be open.
    """

    verb: str
    thing: str
    place: str
    opens: bool = True


_Row = list[_Stop]
_Path = tuple["_Path | None", _Stop]


def plan(engine: Engine) -> tuple[str, ...] | None:
    """The shortest commands that win from an engine's present state, in the game's own dialect.

    Empty if the goal holds already; None for a dead end, a state from which the game cannot be won any more (so is one
    with a thing in hand that no receptacle may contain).
    """
    return _Planner(engine.game, engine.state).plan()


class _Planner:
    def __init__(self, game: Game, state: State) -> None:
        self.game, self.state = game, state
        self.kind = game.goal.kind
        self.sources: _Row = [
            _Stop("take", thing, place)
            for place in game.location
            for thing in state.contents[place]
            if thing in game.goal.objects and thing in game.pickupable
        ]
        self.closed = game.openable - state.opened
        self.best: tuple[int, _Path] | None = None

    def plan(self) -> tuple[str, ...] | None:
        if self.game.won(self.state):
            return ()
        for rows in self._candidates():
            self._improve(rows)
        return None if self.best is None else tuple(self._commands(self.best[1]))

    def _candidates(self) -> Iterator[list[_Row]]:
        """All kinds of plan that could be the shortest, each as rows of stops to choose from."""
        holding = self.state.holding
        if holding in self.game.goal.objects:
            yield from self._with_thing(holding)
        if holding is None:
            yield from self._from_empty_hand([])
        elif self.kind == "look" and holding in self.game.goal.targets:
            # The lamp itself is in hand: wherever it is put down is where it must be used.
            for drop in self._put_row(self.game.receptacles, holding):
                lamp = self._lamp_stop(holding, drop.place)
                yield from self._from_empty_hand([[drop]], extra=[lamp])
        elif self.kind != "two" or not self._is_useful(holding):
            for rows in self._from_empty_hand([]):
                if drops := self._drops(holding, rows):
                    yield [drops, *rows]

    def _is_useful(self, thing: str) -> bool:
        """Whether a thing in hand can be one of the two in every target (then dropping it elsewhere is a waste)."""
        goal = self.game.goal
        return thing in goal.objects and not any(thing in self.state.contents[t] for t in goal.targets)

    def _with_thing(self, thing: str) -> Iterator[list[_Row]]:
        """Plans that use the wanted thing in hand."""
        put = self._put_row(self.game.goal.targets, thing)
        if self.kind == "look":
            yield [self._lamps()]
        elif self.kind == "place" or thing in self._treated():
            yield [put]
        elif self.kind == "two":
            for stop in put:
                inside = self._wanted_in(stop.place)
                if thing not in inside:
                    more = [s for s in self.sources if s.place != stop.place and s.thing not in (*inside, thing)]
                    yield [[stop]] if inside else [[stop], more, [stop._replace(thing="")]]
        else:
            in_place = any(thing in self.state.contents[t] for t in self.game.goal.targets)
            yield [self._appliances()] if in_place else [self._appliances(), put]

    def _from_empty_hand(self, rows: list[_Row], extra: Iterable[_Stop] = ()) -> Iterator[list[_Row]]:
        """Plans that begin by taking a wanted thing."""
        goal = self.game.goal
        put = [s._replace(thing="") for s in self._put_row(goal.targets, goal.objects[0] if goal.objects else "")]
        if self.kind == "look":
            yield [*rows, self.sources, [*self._lamps(), *extra]]
        elif self.kind == "place":
            yield [*rows, self.sources, put]
        elif self.kind == "two":
            for stop in put:
                inside = self._wanted_in(stop.place)
                fetch = [s for s in self.sources if s.place != stop.place and s.thing not in inside]
                yield [*rows, fetch, [stop]] if inside else [*rows, fetch, [stop], fetch, [stop]]
        else:
            treated = self._treated()
            yield [*rows, [s for s in self.sources if s.thing in treated], put]
            raw = [s for s in self.sources if s.thing not in treated]
            yield [*rows, raw, self._appliances(), put]
            # A thing listed in two receptacles stays in the other one: if that is a target, treating it is enough.
            stays = [s for s in raw if any(s.thing in self.state.contents[t] for t in goal.targets if t != s.place)]
            yield [*rows, stays, self._appliances()]

    def _treated(self) -> frozenset[str]:
        state = self.state
        return {"clean": state.clean, "heat": state.hot, "cool": state.cool}.get(self.kind, frozenset())

    def _wanted_in(self, place: str) -> tuple[str, ...]:
        return tuple(o for o in self.state.contents[place] if o in self.game.goal.objects)

    def _appliances(self) -> _Row:
        game = self.game
        kinds = game.cleaning_types if self.kind == "clean" else {APPLIANCES[self.kind]}
        return [_Stop(self.kind, "", r, opens=False) for r in game.location if game.types[r] in kinds]

    def _lamps(self) -> _Row:
        lamps = self.game.goal.targets
        return [self._lamp_stop(o, r) for r in self.game.location for o in self.state.contents[r] if o in lamps]

    def _lamp_stop(self, lamp: str, place: str) -> _Stop:
        return _Stop("" if lamp in self.state.toggled else "use", lamp, place, opens=False)

    def _put_row(self, places: Iterable[str], thing: str) -> _Row:
        game = self.game
        return [_Stop("put", thing, r) for r in places if r in game.location and game.accepts(r, thing)]

    def _drops(self, thing: str, rows: list[_Row]) -> _Row:
        """Where to put down what is in the way: the places that can be part of a shortest plan.

        At one location the cheapest place does, but a place that is used later may be opened on this occasion; and of
        all locations that are not visited anyway one, the cheapest, does.
        """
        location = self.game.location
        used = {stop.place for row in rows for stop in row}
        visited = {location[place] for place in used} | {self.state.location}
        chosen: dict[str, _Stop] = {}
        for stop in sorted(self._put_row(self.game.receptacles, thing), key=lambda s: s.place in self.closed):
            at = location[stop.place]
            chosen.setdefault(stop.place if stop.place in used else at if at in visited else "elsewhere", stop)
        return list(chosen.values())

    def _improve(self, rows: list[_Row]) -> None:
        """Finds the cheapest choice of one stop per row, if it beats the best so far."""
        location, closed = self.game.location, self.closed
        bound = self.best[0] if self.best else 1_000_000
        # What will be needed open again later must be remembered when it is opened; anything else need not be.
        later: list[set[str]] = [set() for _ in rows]
        for i in range(len(rows) - 2, -1, -1):
            later[i] = later[i + 1] | {stop.place for stop in rows[i + 1] if stop.opens}
        frontier: dict[tuple[str, frozenset[str], str], tuple[int, _Path | None]] = {
            (self.state.location, frozenset(), ""): (0, None)
        }
        for i, row in enumerate(rows):
            reached: dict[tuple[str, frozenset[str], str], tuple[int, _Path | None]] = {}
            for (at, opened, taken), (cost, path) in frontier.items():
                for stop in row:
                    verb, thing, place, opens = stop
                    if verb == "take" and thing == taken:
                        continue  # the first of two is in its place already
                    there = location[place]
                    total = cost + (there != at) + (verb != "")
                    now_open = opened
                    if opens and place in closed and place not in opened:
                        total += 1
                        if place in later[i]:
                            now_open = opened | {place}
                    if total >= bound:
                        continue
                    key = (there, now_open, thing if verb == "take" else taken)
                    known = reached.get(key)
                    if known is None or total < known[0]:
                        reached[key] = (total, (path, stop))
            frontier = reached
        for total, path in frontier.values():
            if path is not None and total < bound:
                bound = total
                self.best = (total, path)

    def _commands(self, path: _Path | None) -> Iterator[str]:
        stops: list[_Stop] = []
        while path is not None:
            path, stop = path
            stops.append(stop)
        at, holding = self.state.location, self.state.holding
        closed = set(self.closed)
        for verb, thing, place, opens in reversed(stops):
            if self.game.location[place] != at:
                yield f"go to {place}"
                at = self.game.location[place]
            if opens and place in closed:
                yield f"open {place}"
                closed.discard(place)
            if verb == "take":
                yield f"take {thing} from {place}"
                holding = thing
            elif verb == "put":
                yield self.game.put_command(thing or holding or "", place)
                holding = None
            elif verb == "use":
                yield f"use {thing}"
            elif verb:
                yield f"{verb} {holding} with {place}"
