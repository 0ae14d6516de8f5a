"""Users other than root in boxes of namespaces: who runs what, whose files are whose, and what they cannot do together."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from hostile import sh

from leap_worlds.sandbox import Image, Limits, Recipe, Sandbox, SandboxGone, Step
from leap_worlds.sandbox.namespace import users
from leap_worlds.sandbox.namespace.provider import NamespaceProvider
from leap_worlds.sandbox.store import LayerStore

ACCOUNTS = b"root:x:0:0::/root:/bin/sh\nworker:x:1000:100::/home/worker:/bin/sh\n"
GROUPS = b"root:x:0:\nusers:x:100:\nguild:x:7:other,worker\n"


@pytest.fixture(scope="module")
def peopled(namespace: NamespaceProvider) -> Image:
    if problem := namespace.users_missing():
        pytest.skip(problem)
    tables = {"/etc/passwd": ACCOUNTS, "/etc/group": GROUPS}
    made = "mkdir -p /home/worker && chown 1000:100 /home/worker && chmod 1777 /tmp"
    steps = (
        Step(argv=("bash", "-c", made), files=tables),
        Step(argv=("bash", "-c", 'echo "$HOME" > ~/mine'), user="worker"),
    )
    return namespace.build(Recipe(users=True, steps=steps))


@pytest.fixture
def box(namespace: NamespaceProvider, peopled: Image) -> Iterator[Sandbox]:
    with namespace.create(peopled) as made:
        yield made


def as_user(box: Sandbox, command: str, user: str = "worker") -> str:
    return box.exec(["bash", "-c", command], timeout=20, user=user).output.decode()


def test_a_command_and_a_step_are_run_by_who_is_named_with_its_groups_and_home(box: Sandbox) -> None:
    assert (
        as_user(box, "id -u; id -g; id -G; echo $HOME; cat ~/mine") == "1000\n100\n100 7\n/home/worker\n/home/worker\n"
    )
    assert as_user(box, "id -u; id -g; echo $HOME", "12:7") == "12\n7\n/\n"
    assert as_user(box, "id -g", "worker:guild") == "7\n"
    assert as_user(box, "id -u; echo $HOME", "root") == "0\n/root\n"
    assert box.exec(["bash", "-c", "echo $HOME"], env={"HOME": "/x"}, user="worker").output == b"/x\n"
    assert as_user(box, "echo named > /dev/stdout; cat /dev/stdin") == "named\n"
    assert box.exec(["cat", "/dev/stdin"], input=b"given", user="worker").output == b"given"


def test_files_are_whose_they_are(box: Sandbox) -> None:
    assert as_user(box, "touch ~/a; stat -c %u:%g ~/a ~/mine /tmp") == "1000:100\n1000:100\n0:0\n"
    said = as_user(box, "touch /root/x /etc/passwd; rm -rf /etc; mkdir /x; chown 0 ~/a; cat /root/y")
    assert said.count("Permission denied") >= 3 and "Operation not permitted" in said
    sh(box, "chown -R 5:6 /home/worker; mkdir -m 700 /own; touch /own/x")
    assert as_user(box, "stat -c %u:%g ~/a; ls /own") == "5:6\nls: cannot open directory '/own': Permission denied\n"


def test_a_user_has_no_capability_and_gets_none_back(box: Sandbox) -> None:
    sh(box, "cp /bin/bash /tmp/root-bash; chmod u+s /tmp/root-bash")
    said = as_user(box, "/tmp/root-bash -p -c 'id -u'; grep Cap /proc/self/status; kill -9 1; cat /proc/1/environ")
    assert said.startswith("1000\n") and "Operation not permitted" in said and "Permission denied" in said
    assert all(
        int(line.split()[1], 16) == 0 for line in said.splitlines() if line.startswith(("CapPrm", "CapEff", "CapAmb"))
    )


@pytest.mark.parametrize("user", ["nobody-here", "worker:no-group", "70000", "4294967295", "-1", ":", "x" * 5000])
def test_who_is_not_there_runs_nothing(box: Sandbox, user: str) -> None:
    result = box.exec(["touch", "/tmp/ran"], user=user)
    assert (result.exec_error, result.exit_code) == ("user", 126) and result.output
    assert sh(box, "ls /tmp").output == b""


@pytest.mark.parametrize(
    "made",
    [
        "mkfifo /etc/passwd",
        "ln -s /dev/zero /etc/passwd",
        "mkdir /etc/passwd",
        "ln -s passwd /etc/passwd",
        "yes worker:x:1000:100::/:x | head -c 3000000 > /etc/passwd",
        r"printf 'worker:x:\xff:\n\0:::::\nworker:x:99999999999999999999:0:::\n' > /etc/passwd",
    ],
)
def test_whatever_stands_in_the_place_of_the_table_of_users_a_call_returns(box: Sandbox, made: str) -> None:
    sh(box, f"rm /etc/passwd; {made}")
    begun = time.monotonic()
    result = box.exec(["id", "-u"], user="worker", timeout=5)
    assert result.exec_error == "user" or result.output == b"1000\n"
    assert time.monotonic() - begun < 15
    assert box.exec(["echo", "alive"]).output == b"alive\n"  # not by a shell, which reads the table as well


BOMB = """
import os, time
made = 0
for uid in range(2000, 2100):
    if os.fork() == 0:
        os.setuid(uid)
        for _ in range(1000):
            try:
                if os.fork() == 0:
                    time.sleep(60)
                    os._exit(0)
            except OSError:
                break
        time.sleep(60)
        os._exit(0)
time.sleep(3)
print(sum(name.isdigit() for name in os.listdir('/proc')))
"""


def test_all_users_of_a_box_together_have_no_more_processes_than_one(
    namespace: NamespaceProvider, peopled: Image
) -> None:
    with namespace.create(peopled) as other, namespace.create(peopled, Limits(processes=40)) as bomb:
        try:
            said = bomb.exec(["python3", "-I", "-S", "-c", BOMB], timeout=20).output
            counted = [int(word) for word in said.split() if word.isdigit()]
            assert not counted or counted[-1] <= 40 + 64 + 2
        except SandboxGone:
            pass
        assert sh(other, "echo alive").output == b"alive\n"


def test_the_kernel_counts_processes_and_watches_of_a_box_s_users_together(peopled: Image, tmp_path: Path) -> None:
    """Without control groups: what counts is the user namespace around the box's."""
    provider = NamespaceProvider(store=LayerStore(tmp_path / "store"))
    provider.store.prepare()
    script = (
        "import os, sys; sys.path.append(sys.argv[1]); from namespace import kernel, mounts, users\n"
        "import json, ctypes; from pathlib import Path\n"
        "settings = json.loads(sys.argv[2]); whole = users.outer(settings['ids'], settings['drop_to'])\n"
        "if settings['drop_to']: kernel.become(*settings['drop_to'][:1], settings['drop_to'][1]); kernel.set_dumpable(True)\n"
        "kernel.unshare(kernel.CLONE_NEWUSER); whole.do(); users.bound_all(20); mounts.bound_watches(Path('/proc'))\n"
        "inner = users.same(); kernel.unshare(kernel.CLONE_NEWUSER); inner.do()\n"
        "made = 0\n"
        "for uid in range(1, 31):\n"
        "    try: pid = os.fork()\n"
        "    except BlockingIOError: break\n"
        "    if pid == 0:\n"
        "        os.setresuid(uid, uid, uid); import time; time.sleep(3); os._exit(0)\n"
        "    made += 1\n"
        "print(made)\n"
        "libc = ctypes.CDLL(None)\n"
        "print(sum(libc.inotify_init1(0) >= 0 for _ in range(5)))\n"
    )
    settings = json.dumps({"ids": provider.store.ids, "drop_to": provider.store.drop_to})
    here = str(Path(users.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, here, settings],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    made, watches = map(int, done.stdout.split())
    assert 10 <= made < 20 and watches == 1, done.stdout


def test_what_users_leave_on_disk_goes_with_the_box_and_layers_keep_whose_it_is(
    namespace: NamespaceProvider, peopled: Image
) -> None:
    boxes = namespace.store.root / "boxes"
    with namespace.create(peopled, on_disk=True) as box:
        sh(box, "mkdir -m 700 /d && touch /d/x && chown -R 1000:7 /d && chmod 000 /d/x")
        folder = boxes / box.box
        assert (folder / "u/d/x").exists()
    until = time.monotonic() + 20
    while folder.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not folder.exists()
    grown = namespace.build(Recipe(users=True, steps=(Step(argv=("bash", "-c", "touch /w; chown 3:4 /w")),)))
    with namespace.create(grown) as box:
        assert sh(box, "stat -c %u:%g /w").output == b"3:4\n"


def test_a_tar_s_owners_are_kept_where_there_are_users_and_are_root_where_not(
    namespace: NamespaceProvider, rootfs: Path, tmp_path: Path
) -> None:
    if problem := namespace.users_missing():
        pytest.skip(problem)
    tar = tmp_path / "owned.tar"
    with tarfile.open(rootfs) as old, tarfile.open(tar, "w") as new:
        for entry in old:
            new.addfile(entry, old.extractfile(entry) if entry.isfile() else None)
        entry = tarfile.TarInfo("srv/x")
        entry.uid, entry.gid, entry.size, entry.mode = 1000, 7, 1, 0o640
        new.addfile(entry, BytesIO(b"x"))
    for asked, owner in ((True, b"1000:7"), (False, b"0:0")):
        with namespace.create(namespace.build(Recipe(rootfs=tar, users=asked))) as box:
            assert sh(box, "stat -c '%u:%g %a' /srv/x").output == owner + b" 640\n"


def test_without_users_a_box_has_root_alone(namespace: NamespaceProvider) -> None:
    with namespace.create(namespace.build(Recipe())) as box:
        assert box.exec(["id"], user="1000").exec_error == "user"
        assert sh(box, "touch /x; chown 1000 /x").exit_code


def test_where_there_are_ids_for_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "uid_map").write_text("0 0 4294967295\n")
    (tmp_path / "gid_map").write_text("0 0 65536\n")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert users.found(tmp_path)[1] == "this place has too few user ids, as inside a container"
    (tmp_path / "gid_map").write_text("0 0 4294967295\n")
    assert users.found(tmp_path) == ({"uids": users.FREE, "gids": users.FREE, "mappers": None}, "")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd(("ann", "x", uid, uid, "", "/", "/bin/sh")))
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    (tmp_path / "subuid").write_text("bob:100000:65536\nann:165536:65536\n")
    (tmp_path / "subgid").write_text("1000:200000:1000\n")
    assert "usermod --add-subuids" in users.found(tmp_path, tmp_path)[1]
    (tmp_path / "subgid").write_text("1000:200000:65536\n")
    found, problem = users.found(tmp_path, tmp_path)
    assert found is not None and (found["uids"], found["gids"], problem) == (165536, 200000, "")
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "apt-get install uidmap" in users.found(tmp_path, tmp_path)[1]
