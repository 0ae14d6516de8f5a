"""`leap data alfworld`, against a server of this machine with archives laid out as the releases' are."""

from __future__ import annotations

import json
import os
import threading
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from alfworld_games import tiny_data
from typer.testing import CliRunner

from leap.cli.app import app
from leap.errors import LeapError, PrerequisiteError, RunError
from leap_worlds.alfworld import data, fetch
from leap_worlds.alfworld.data import OfficialData
from leap_worlds.alfworld.fetch import Archive

GAME = "pick_and_place_simple-Spoon-None-Cabinet-7/trial_1"
SPLITS = ("train", "valid_seen", "valid_unseen")


class Server(ThreadingHTTPServer):
    """Serves files by their path; what it does wrong is said beforehand.

    Attributes:
        asked: Path and range of each request.
        cut: The connection of so many first answers breaks off after half of what was asked for.
        ranges: Whether it knows ranges.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.asked: list[tuple[str, str]] = []
        self.cut = 0
        self.ranges = True
        self.status = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.server.asked.append((self.path, asked))
        content = self.server.files.get(self.path)
        if content is None or self.server.status:
            self.send_error(self.server.status or 404)
            return
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        content = content[begin:]
        if self.server.cut:
            self.server.cut -= 1
            content = content[: len(content) // 2]
        self.wfile.write(content)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


def zipped(path: Path, entries: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path.read_bytes()


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with a game of each split in the releases' archives, whose checksums are the ones expected."""
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "data"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(data, "OFFICIAL_SPLITS", dict.fromkeys(SPLITS, 1))
    place = {split: f"json_2.1.1/{split}/{GAME}" for split in SPLITS}
    game = json.dumps(tiny_data("move", "place")).encode()
    trajectory = json.dumps({"task_type": "pick_and_place_simple", "noise": os.urandom(20_000).hex()}).encode()
    archives = {
        fetch.TRAJECTORIES: {f"{one}/traj_data.json": trajectory for one in place.values()},
        fetch.GAMES["2.1.3"]: {f"{one}/game.tw-pddl": game for one in place.values()} | {"README.md": b"not needed"},
    }
    server = Server({})
    for archive, entries in archives.items():
        publish(server, archive, zipped(tmp_path / archive.name, entries), monkeypatch)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(fetch, "SOURCE", server.address)
    yield server
    server.shutdown()
    server.server_close()


def publish(server: Server, archive: Archive, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files[f"/{archive.path}"] = content
    made = archive._replace(size=len(content), sha256=sha256(content).hexdigest())
    if archive.path == fetch.TRAJECTORIES.path:
        monkeypatch.setattr(fetch, "TRAJECTORIES", made)
    else:
        monkeypatch.setitem(fetch.GAMES, "2.1.3", made)


def asked_for(server: Server, *more: str) -> Any:
    done = CliRunner().invoke(app, ["data", "alfworld", "--from", server.address, *more])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_games_are_fetched_once_checked_and_played(published: Server, tmp_path: Path) -> None:
    done = asked_for(published)
    assert done.exit_code == 0, done.output
    for split in SPLITS:
        assert f"{split}: 1 of 1 playable games" in done.stdout
    assert left(tmp_path / "data") == ["json_2.1.1"], "no archive stays behind"
    assert not (tmp_path / "data" / "README.md").exists()
    assert "fetching json_2.1.1_json.zip" in done.stderr and "unpacking 6 files" in done.stderr
    requests = len(published.asked)
    assert requests == 2 and asked_for(published).exit_code == 0 and len(published.asked) == requests
    played = CliRunner().invoke(app, ["validate", "alfworld", "--split", "valid_unseen", "--set", "source=official"])
    assert played.exit_code == 0, played.output


def test_a_split_that_is_not_whole_is_told_with_what_mends_it(published: Server, tmp_path: Path) -> None:
    asked_for(published)
    (tmp_path / "data" / "json_2.1.1" / "train" / GAME / "game.tw-pddl").unlink()
    done = asked_for(published)
    assert done.exit_code == 1 and "train: 0 of 1 playable games; to have them fetched anew, move " in done.stdout


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_is_gone_on_with(published: Server, ranges: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    published.cut, published.ranges = 2, ranges
    assert asked_for(published).exit_code == 0
    begun = [part for path, part in published.asked if path.endswith("json_2.1.1_json.zip")]
    size = len(published.files[f"/{fetch.TRAJECTORIES.path}"])
    assert begun[:2] == ["", f"bytes={size // 2}-"] and len(begun) == 3


def test_what_came_before_an_interruption_is_not_fetched_again(published: Server, tmp_path: Path) -> None:
    published.cut = 100
    with pytest.raises(PrerequisiteError, match=r"broke off after [\d,]+ of [\d,]+ bytes") as refused:
        asked_for(published)
    assert "The same command goes on where it stopped" in str(refused.value)
    (part,) = (tmp_path / "data").iterdir()
    have = part.stat().st_size
    published.cut = 0
    published.asked.clear()
    assert asked_for(published).exit_code == 0
    assert published.asked[0] == (f"/{fetch.TRAJECTORIES.path}", f"bytes={have}-")


def test_another_file_than_the_published_one_is_refused_and_not_kept(published: Server, tmp_path: Path) -> None:
    name = f"/{fetch.TRAJECTORIES.path}"
    whole = published.files[name]
    for other in (whole[:-9] + b"otherwise", whole + b"more", b"<html>no such page</html>" * 10_000):
        published.files[name] = other
        with pytest.raises(PrerequisiteError, match="is not the published"):
            asked_for(published)
        assert left(tmp_path / "data") == [], "to go on with it would not mend it"
    published.files[name] = whole
    assert asked_for(published).exit_code == 0


def test_a_mirror_may_keep_the_archives_side_by_side_and_a_folder_too(published: Server, tmp_path: Path) -> None:
    for path in [*published.files]:
        published.files[f"/mirror/{path.rpartition('/')[2]}"] = published.files.pop(path)
    done = CliRunner().invoke(app, ["data", "alfworld", "--from", f"{published.address}/mirror/"])
    assert done.exit_code == 0, done.output
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    done = CliRunner().invoke(app, ["data", "alfworld", "--from", str(tmp_path)])  # where the archives were made
    assert done.exit_code == 0 and (tmp_path / fetch.TRAJECTORIES.name).exists(), "what people put there stays"
    done = CliRunner().invoke(app, ["data", "alfworld", "--from", str(tmp_path / "elsewhere")])
    assert done.exit_code == 0 and str(tmp_path / "elsewhere") in done.stdout, "unpacked already: only checked"
    (tmp_path / "data").rename(tmp_path / "third")
    with pytest.raises(
        PrerequisiteError, match=r"(?s)there is no json_2.1.1_json.zip in .*bring these here by other means"
    ):
        raise CliRunner().invoke(app, ["data", "alfworld", "--from", str(tmp_path / "cache")]).exception  # type: ignore[misc]


@pytest.mark.parametrize("status", [403, 404, 500])
def test_what_a_server_refuses_is_told_with_what_to_put_where(published: Server, status: int, tmp_path: Path) -> None:
    published.status = status
    with pytest.raises(PrerequisiteError) as refused:
        asked_for(published)
    first, *rest = str(refused.value).splitlines()
    assert ("no such file" if status == 404 else str(status)) in first
    assert [line.split()[0].rpartition("/")[2] for line in rest[1:]] == [
        fetch.TRAJECTORIES.name,
        fetch.GAMES["2.1.3"].name,
    ]
    assert str(tmp_path / "data") in rest[0]


def test_a_server_that_is_not_there_is_told_at_once(published: Server) -> None:
    published.shutdown()
    published.server_close()
    with pytest.raises(PrerequisiteError, match=r"127\.0\.0\.1 cannot be reached"):
        asked_for(published)


def test_it_goes_through_a_proxy(published: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy is asked for the whole address, of a host that nobody knows."""
    host = "http://mirror.invalid"
    published.files = {f"{host}{path}": content for path, content in published.files.items()}
    monkeypatch.setenv("http_proxy", published.address)
    monkeypatch.setenv("no_proxy", "")
    done = CliRunner().invoke(app, ["data", "alfworld", "--from", host])
    assert done.exit_code == 0, done.output
    assert {path for path, _ in published.asked} == set(published.files)


@pytest.mark.parametrize(
    "name",
    ["json_2.1.1/../../evil/game.tw-pddl", "/json_2.1.1/train/game.tw-pddl", "json_2.1.1/train/..\\game.tw-pddl"],
)
def test_names_that_lead_out_of_the_folder_are_refused(
    published: Server, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(published, fetch.TRAJECTORIES, zipped(tmp_path / "evil.zip", {name: b"x"}), monkeypatch)
    before = {path for path in tmp_path.rglob("*") if "data" not in path.parts}
    with pytest.raises(PrerequisiteError, match="leads out of its folder"):
        asked_for(published)
    assert {path for path in tmp_path.rglob("*") if "data" not in path.parts} == before
    assert not (tmp_path / "data" / "json_2.1.1").exists()


def test_a_link_in_an_archive_is_refused(published: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = zipfile.ZipInfo("json_2.1.1/train/a/b/traj_data.json")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    publish(published, fetch.TRAJECTORIES, (tmp_path / "link.zip").read_bytes(), monkeypatch)
    with pytest.raises(PrerequisiteError, match="leads out of its folder"):
        asked_for(published)


def test_what_is_no_archive_or_has_no_room_is_told(
    published: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(published, fetch.TRAJECTORIES, b"PK not really", monkeypatch)
    with pytest.raises(PrerequisiteError, match="an archive cannot be unpacked: File is not a zip file"):
        asked_for(published)
    for part in (tmp_path / "data").iterdir():
        part.unlink()
    publish(published, fetch.TRAJECTORIES, (tmp_path / fetch.TRAJECTORIES.name).read_bytes(), monkeypatch)
    usage = fetch.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(PrerequisiteError, match=r"needs \d+ MB for the games, and 0 MB are free"):
        asked_for(published)
    assert not (tmp_path / "data" / "json_2.1.1").exists() and not list((tmp_path / "data").glob(".*"))


def test_a_full_disk_is_told_as_one_and_what_came_stays(published: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def full(answer: object, expected: int) -> Iterator[bytes]:
        tried.append(expected)
        raise OSError(28, "No space left on device")
        yield b""

    monkeypatch.setattr(fetch, "_blocks", full)
    with pytest.raises(RunError, match="the disk is full"):
        asked_for(published)
    assert len(tried) == 1, "to ask the server again would not help"


def test_a_folder_that_cannot_be_made_is_told(published: Server, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(LeapError, match="cannot write"):
        asked_for(published)


def test_official_games_in_the_releases_layout_are_all_found_and_played(
    published: Server, official_games: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [path for path in (official_games / "json_2.1.1" / "valid_seen").rglob("*") if path.is_file()]
    for archive, name in ((fetch.TRAJECTORIES, "traj_data.json"), (fetch.GAMES["2.1.3"], "game.tw-pddl")):
        made = tmp_path / f"official-{archive.name}"
        with zipfile.ZipFile(made, "w") as out:
            for path in files:
                if path.name == name:
                    out.write(path, path.relative_to(official_games))
        publish(published, archive, made.read_bytes(), monkeypatch)
    monkeypatch.setattr(data, "OFFICIAL_SPLITS", {"valid_seen": 140})
    assert asked_for(published).exit_code == 0
    got, expected = (OfficialData(root).entries("valid_seen") for root in (tmp_path / "data", official_games))
    assert [(entry.id, entry.task) for entry in got] == [(entry.id, entry.task) for entry in expected]
    played = CliRunner().invoke(app, ["validate", "alfworld", "--split", "valid_seen", "--set", "source=official"])
    assert played.exit_code == 0, played.output
