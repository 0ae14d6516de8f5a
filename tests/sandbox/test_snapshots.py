"""Snapshots of boxes of namespaces: what a copy has, what it has not, and what a hostile box can make of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import py, sh

from leap_worlds.sandbox import Image, Limits, Recipe, Sandbox, SandboxError, Step
from leap_worlds.sandbox.namespace.provider import NamespaceProvider

LOOK = (
    "cd /; stat -c '%n %a %u:%g %h %Y %F' made/* made/deep/er/* kept/*; ls -a made kept gone; cat made/text; ls /bin/tr"
)


@pytest.fixture(params=[False, True], ids=["root-alone", "with-users"])
def image(request: pytest.FixtureRequest, namespace: NamespaceProvider) -> Image:
    if request.param and (problem := namespace.users_missing()):
        pytest.skip(problem)
    step = Step(argv=("bash", "-c", "mkdir /kept /gone; echo old > /kept/a; touch /kept/b /gone/x"))
    return namespace.build(Recipe(users=request.param, steps=(step,)))


@pytest.fixture
def box(namespace: NamespaceProvider, image: Image) -> Iterator[Sandbox]:
    with namespace.create(image) as made:
        yield made


def entries(namespace: NamespaceProvider) -> set[Path]:
    return {path for path in (namespace.store.root / "boxes").iterdir() if path.name.startswith("snapshot")}


def test_a_copy_has_the_files_as_they_are_and_both_go_on_by_themselves(
    namespace: NamespaceProvider, box: Sandbox, image: Image
) -> None:
    changes = (
        "mkdir -p /made/deep/er; cd /made; echo text > text; ln text same; ln -s text link; mkfifo pipe; echo z > deep/er/z; "
        "touch -d 2001-01-01 old; chmod 751 deep; chmod 4711 text; echo new > /kept/a; rm /kept/b /bin/tr; rm -r /gone; "
        "mkdir /gone; touch /gone/y; dd if=/dev/zero of=sparse bs=1 count=1 seek=30M 2>/dev/null; "
        + ("chown 5:6 old; chown -h 7:8 link" if image.users else "")
    )
    assert sh(box, changes).exit_code == 0
    py(box, "import socket; socket.socket(socket.AF_UNIX).bind('/made/socket')")
    before = sh(box, LOOK).output
    snapshot = box.snapshot(quiet=True)
    with namespace.create(snapshot) as copy, namespace.create(snapshot) as other:
        assert sh(copy, LOOK).output == before and b"No such file" in before and b"4711" in before
        assert sh(copy, "du -k /made/sparse; stat -c %s /made/sparse").output.split()[0] != b"30720"
        sh(copy, "rm -r /made; echo mine > /kept/a")
        assert sh(box, LOOK).output == sh(other, LOOK).output == before
        again = copy.snapshot()
        with namespace.create(again) as third:
            assert sh(third, "ls -d /made; cat /kept/a").output.endswith(b"mine\n")
        namespace.drop(again)
    namespace.drop(snapshot)
    until = time.monotonic() + 20
    while entries(namespace) and time.monotonic() < until:
        time.sleep(0.05)
    assert not entries(namespace)


def test_where_something_runs_there_is_no_quiet_snapshot(namespace: NamespaceProvider, box: Sandbox) -> None:
    sh(box, "sleep 300 >/dev/null 2>&1 &")
    with pytest.raises(SandboxError, match="something runs"):
        box.snapshot(quiet=True)
    namespace.drop(box.snapshot())
    assert sh(box, "echo on").output == b"on\n"


@pytest.mark.parametrize(
    "made",
    [
        "cd /; for i in $(seq 150); do mkdir d; cd d; done",
        "dd if=/dev/zero of=/dev/null count=0; mkdir /a; cd /a; for i in $(seq 3000); do : > $i; done",
        "ln -s / /root-of-all; ln -s /proc/1/root /made; ln -s ../../../../../../etc /up",
    ],
    ids=["deep", "many", "links"],
)
def test_whatever_is_in_a_box_nothing_is_read_or_written_elsewhere(namespace: NamespaceProvider, made: str) -> None:
    with namespace.create(namespace.build(Recipe())) as box:
        assert sh(box, made).exit_code == 0
        try:
            snapshot = box.snapshot()
        except SandboxError as error:
            assert "too deep" in str(error)
        else:
            folder = namespace.store.layer(snapshot.layers[0])
            assert all(
                path.is_symlink() or not path.name.startswith(("root-of-all", "made", "up"))
                for path in folder.iterdir()
            )
            with namespace.create(snapshot) as copy:
                assert sh(copy, "echo alive").output == b"alive\n"
            namespace.drop(snapshot)
        assert sh(box, "echo alive").output == b"alive\n"


SHIFTY = """
import os, random, signal
os.setsid() if os.fork() == 0 else os._exit(0)
names = [f"/s{n}" for n in range(20)]
while True:
    name = random.choice(names)
    try:
        kind = random.randrange(5)
        if kind == 0: os.mkdir(name)
        elif kind == 1: open(name, "w").write("x" * random.randrange(9999))
        elif kind == 2: os.symlink("/proc/1/root", name)
        elif kind == 3: os.mkfifo(name)
        else: os.rename(name, random.choice(names) + "/" * random.randrange(2) + "y")
    except OSError:
        try: os.remove(name)
        except OSError: pass
"""


def test_a_box_that_changes_its_files_meanwhile_gets_a_snapshot_or_an_error_in_time(
    namespace: NamespaceProvider,
) -> None:
    with namespace.create(namespace.build(Recipe()), Limits(inodes=2000)) as box:
        box.exec(["bash", "-c", f"python3 -I -S -c '{SHIFTY}' >/dev/null 2>&1 </dev/null &"])
        for _ in range(20):
            begun = time.monotonic()
            with contextlib.suppress(SandboxError):
                namespace.drop(box.snapshot())
            assert time.monotonic() - begun < 45
        assert box.exec(["echo", "alive"], timeout=20).output == b"alive\n"


def test_snapshots_that_were_not_dropped_go_with_the_store_s_last_user(
    namespace: NamespaceProvider, tmp_path: Path
) -> None:
    from leap_worlds.sandbox.store import LayerStore

    store = LayerStore(tmp_path / "store")
    first = NamespaceProvider(store=store, rootfs=namespace._rootfs)
    with first.create(first.build(Recipe())) as box:
        kept = box.snapshot()
    first.close()
    assert store.layer(kept.layers[0]).is_dir()
    second = NamespaceProvider(store=store, rootfs=namespace._rootfs)
    assert second.probe().ok
    until = time.monotonic() + 20
    while store.layer(kept.layers[0]).is_dir() and time.monotonic() < until:
        time.sleep(0.05)
    assert not store.layer(kept.layers[0]).is_dir()
    with pytest.raises(SandboxError, match="is not in"):
        second.create(kept)
    second.close()
