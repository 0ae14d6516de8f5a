"""A MariaDB server of leap's own: found on the machine, data of its own, reached by a socket only leap can open, no network.

Spider's databases are loaded once, into a folder in leap's cache named by what they were made of. Each process starts
its server on a private copy of that folder and throws the copy away when it stops.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import IO, TypedDict

from leap.errors import LeapError, PrerequisiteError
from leap.paths import cache_dir
from leap_worlds.intercode.sql.mysql import MySqlConnection, SqlLimits, driver

_PLACES = ("/usr/sbin", "/usr/libexec", "/usr/local/sbin", "/usr/bin", "/usr/local/bin", "/opt/homebrew/bin")
_USER = "leap"
_PREFIX = "leap-mariadb-"
_START_SECONDS = 60.0
_OPTIONS = (
    "--skip-networking",
    "--lower-case-table-names=1",  # as upstream's compose file
    "--performance-schema=OFF",
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=8M",
    "--innodb-flush-log-at-trx-commit=0",
    "--max-connections=600",
    "--tmp-memory-table-size=0",  # in memory, equal rows are ordered by address, and a LIMIT among them gives any
)

_LASTING = ("--lower-case-table-names=1", "--innodb-log-file-size=8M")
"""Those that the data are made with, too."""


def find_server() -> str | None:
    """The path of MariaDB's server program; None where there is none."""
    for name in ("mariadbd", "mysqld"):
        with contextlib.suppress(LeapError):
            path = _program("", name)
            if "mariadb" in _run([path, "--version"], "asking for the version").lower():
                return path
    return None


class ManagedMariaDb:
    """The server, of Spider's databases as SQL. Started by the first connection, stopped by `close` or with the
    process. Raises `PrerequisiteError` where MariaDB or PyMySQL is not installed."""

    def __init__(self, dump: Path) -> None:
        driver()
        server = find_server()
        if server is None:
            raise PrerequisiteError(
                "SQL tasks need a database: there is no MariaDB server on this machine. Install it (apt-get install "
                "mariadb-server, brew install mariadb; leap starts its own, no service is needed), give a server's address as "
                "the option database: mysql://user:password@host:port/."
            )
        self._server = server
        said = _run([server, "--version"], "asking for the version")
        self._version = re.sub(r"^.*?Ver\s+", "", said).split(" ")[0]
        self.description = f"MariaDB {self._version}"
        self._dump = dump
        self._starting = threading.Lock()
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Loads the databases, if that was not done yet (some 10 seconds)."""
        if not (self._template / "ready").exists():
            self._make_template()

    def connect(self, database: str, limits: SqlLimits) -> MySqlConnection:
        """A connection that can only read. The first starts the server, on a private copy of the data."""
        with self._starting:  # any number of threads may be the first
            if self._process is None or self._folder is None:
                self.prepare()
                _remove_leftovers()
                self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
                atexit.register(self.close)
                shutil.copytree(self._template / "data", self._folder / "data")
                self._process = self._launch(self._folder)
            options = {"unix_socket": str(self._folder / "socket"), "user": _USER, "ssl_disabled": True}
        return MySqlConnection(options, database, limits)

    def close(self) -> None:
        """Stops the server and removes its data."""
        process, folder = self._process, self._folder
        self._process = self._folder = None
        if process is not None:
            _stop(process)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        atexit.unregister(self.close)

    @property
    def _template(self) -> Path:
        made_of = hashlib.sha256(self._dump.read_bytes())
        made_of.update(f"{self._version} {_OPTIONS} 1".encode())
        return cache_dir() / "intercode" / "mariadb" / made_of.hexdigest()[:16]

    def _make_template(self) -> None:
        """Makes an empty server, loads the dump and gives a user that may only read. In the temporary folder, for a
        server that gave up root's rights cannot reach root's cache."""
        with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", ignore_cleanup_errors=True) as made:
            folder = Path(made)
            install = _program(self._server, "mariadb-install-db", "mysql_install_db")
            client = _program(self._server, "mariadb", "mysql")
            data = folder / "data"
            data.mkdir()
            _give(folder)
            options = ("--auth-root-authentication-method=normal", "--skip-test-db", *_LASTING)
            _run([install, "--no-defaults", f"--datadir={data}", *options], "making an empty database")
            process = self._launch(folder, user="root")
            as_root = [client, "--no-defaults", f"--socket={folder / 'socket'}", "--user=root"]
            try:
                with self._dump.open("rb") as statements:
                    _run(as_root, f"loading {self._dump}", stdin=statements)
                names = _run([*as_root, "-N", "-e", "SHOW DATABASES"], "listing the databases").split()
                _run([*as_root, "-e", _grants(names)], "making a read-only user")
            finally:
                _stop(process)
            self._template.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._template.parent) as beside:
                target = Path(beside) / "made"
                shutil.copytree(data, target / "data", ignore=shutil.ignore_patterns("*.pid", "*.err"))
                (target / "ready").touch()
                with contextlib.suppress(OSError):  # another process was faster
                    target.rename(self._template)

    def _launch(self, folder: Path, user: str = _USER) -> subprocess.Popen[bytes]:
        _give(folder)
        log = folder / "log"
        command = [self._server, "--no-defaults", f"--datadir={folder / 'data'}", f"--socket={folder / 'socket'}",
                   f"--pid-file={folder / 'pid'}", f"--tmpdir={folder}", *_OPTIONS]  # fmt: skip
        if (setpriv := shutil.which("setpriv")) is not None:
            command = [setpriv, "--pdeathsig", "TERM", *command]  # a leap that is killed takes its server along
        with log.open("wb") as out:
            process = _held(
                lambda: subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **_as_user())
            )
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            if process.poll() is not None:
                raise LeapError(f"MariaDB did not start: {_last_line(log)}")
            if (folder / "socket").exists() and _answers(folder / "socket", user):
                return process
            time.sleep(0.02)
        _stop(process)
        raise LeapError(f"MariaDB did not start within {_START_SECONDS:.0f} s: {_last_line(log)}")


def _held(start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """Starts a process from a thread that ends with it: to the kernel, who dies first is the thread that started a process."""
    started: Future[subprocess.Popen[bytes]] = Future()

    def hold() -> None:
        try:
            process = start()
        except BaseException as error:
            started.set_exception(error)
        else:
            started.set_result(process)
            process.wait()

    threading.Thread(target=hold, name="leap-mariadb", daemon=True).start()
    return started.result()


def _grants(databases: list[str]) -> str:
    own = {"information_schema", "mysql", "performance_schema", "sys", "test"}
    names = [name for name in databases if name not in own and "`" not in name]
    statements = [
        "DROP USER IF EXISTS 'admin'@'%'",  # the dump's own, which may do everything
        f"CREATE USER '{_USER}'@'localhost'",
        *(f"GRANT SELECT, SHOW VIEW ON `{name}`.* TO '{_USER}'@'localhost'" for name in names),
        "FLUSH PRIVILEGES",
    ]
    return "; ".join(statements)


def _answers(socket: Path, user: str) -> bool:
    pymysql = driver()
    try:
        pymysql.connect(unix_socket=str(socket), user=user, read_timeout=5).close()
    except pymysql.err.MySQLError:
        return False
    return True


def _account() -> pwd.struct_passwd | None:
    """The user to run the server as where leap itself is root, which a database server should not be; None where it is not."""
    for name in ("mysql", "nobody") if os.geteuid() == 0 else ():
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None


class _User(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def _as_user() -> _User:
    account = _account()
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}


def _give(folder: Path) -> None:
    """Makes a folder and all in it the server's own."""
    if account := _account():
        for path in (folder, *folder.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid)


def _run(command: list[str], what: str, stdin: int | IO[bytes] = subprocess.DEVNULL) -> str:
    """Runs a program as the server's user and returns what it says. Raises `LeapError` where it cannot be run, or
    fails."""
    try:
        done = subprocess.run(command, stdin=stdin, capture_output=True, timeout=300, check=False, **_as_user())
    except OSError as error:
        raise LeapError(f"{what} failed: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        raise LeapError(f"{what} failed: {said[-1] if said else f'exit status {done.returncode}'}")
    return done.stdout.decode("utf-8", "replace")


def _program(server: str, *names: str) -> str:
    """A program of MariaDB's: beside the server, on the path, or where packages put it."""
    beside = [str(Path(server).parent)] if server else []
    places = os.pathsep.join([*beside, os.environ.get("PATH", os.defpath), *_PLACES])
    for name in names:
        if (found := shutil.which(name, path=places)) is not None:
            return found
    raise PrerequisiteError(f"{server} is here, but {names[0]} is not; install the whole of MariaDB's server package.")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "[ERROR]" in line]
    return (errors or lines or ["it said nothing"])[-1]


def _remove_leftovers() -> None:
    """Removes the data of processes that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists() and Path("/proc").exists():
            shutil.rmtree(folder, ignore_errors=True)
