"""Slips that anybody makes, on the command line, in recipes and in scripts: each ends in one message that says what to do."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import leap
from leap.errors import LeapError
from leap.testing.corridor import Corridor

GAMES = {"games": {"train": 3, "valid": 2, "unseen": 2}, "receptacles": [6, 7], "rooms": ["bathroom"]}
GAMES |= {"task_types": ["pick_and_place_simple"]}
VALUES: dict[str, Any] = {"name": "x", "iterations": 1, "horizon": 4}
VALUES |= {"environment": {"name": "alfworld", "options": {"generator": GAMES}}}
PAID = ("--set", "teacher={kind: model, model: openai/m, endpoint: {base_url: 'http://127.0.0.1:1/v1', retries: 0}}")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAP_CACHE", str(tmp_path_factory.getbasetemp() / "slips"))  # the games are made once
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "400")
    for name in ("ALFWORLD_DATA", "INTERCODE_DATA", "WEBSHOP_DATA", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(yaml.safe_dump(VALUES))


class Told:
    """What a command printed, and how it ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> tuple[int, str]:
        from leap.cli import main

        self.monkeypatch.setattr(sys, "argv", ["leap", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), " ".join("".join(self.capsys.readouterr()).replace("│", " ").split())


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    return Told(monkeypatch, capsys)


def refused(told: Told, *arguments: str) -> str:
    status, text = told(*arguments)
    assert 0 < status < 70, text
    assert "Traceback" not in text and "unforeseen" not in text and not Path("runs").exists()
    return text


COMMANDS = [
    (("rnu", "quickstart"), "There is no command 'rnu'. Did you mean 'run'?"),
    (("recipes", "sohw", "quickstart"), "Did you mean 'show'?"),
    (("games", "lst"), "Did you mean 'list'?"),
    (("run",), "Missing argument"),
    (("run", "quikstart"), "no such file, and no recipe of that name comes with leap. Did you mean 'quickstart'?"),
    (("run", "."), "there is no recipe '.': that is a folder"),
    (("recipes", "show", "webshop-quikstart"), "Did you mean 'webshop-quickstart'?"),
    (("study", "theroy"), "there is no study 'theroy'. Did you mean 'theory'?"),
    (("play", "alfwordl"), "Did you mean 'alfworld'?"),
    (("validate", "webshp"), "Did you mean 'webshop'?"),
    (("data", "intercod"), "Did you mean 'intercode-sql'?"),
    (("validate", "alfworld", "--splt", "valid"), "Possible options: --limit, --set, --split"),
    (("validate", "alfworld", "--limit", "0"), "greater than or equal to 1"),
    (("validate", "alfworld", "--set", "generater.seed=3"), "generater: unknown key. Did you mean 'generator'?"),
    (("validate", "alfworld", "--set", "source=offical"), "'generated' or 'official' (given: 'offical')"),
    (("validate", "alfworld", "--set", "source=official"), "`leap data alfworld` fetches the official games or says how"),
    (("init", "My Env"), "use small letters, digits and hyphens"),
    (("init", "class"), "no word of Python"),
    (("train", "nosuch", "-i", "0"), "nosuch is not a run directory"),
    (("report", "recipe.yaml"), "recipe.yaml is not a run directory"),
    (("export", "nosuch"), "Missing option '--out'"),
    (("push", "nosuch", "-i", "0"), "give either a repository (owner/name) or --to-folder"),
    (("run", "recipe.yaml", "--run-dir", "recipe.yaml"), "recipe.yaml is a file; choose another --run-dir"),
    (("run", "recipe.yaml", "--run-dir", "a\udcffb"), "the path 'a\\udcffb' is not UTF-8 text; choose another --run-dir"),
]


@pytest.mark.parametrize(("arguments", "said"), COMMANDS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_a_slip_on_the_command_line(arguments: tuple[str, ...], said: str, told: Told) -> None:
    assert said in refused(told, *arguments)


SETTINGS = [
    ("horizon", "'horizon' is not of the form dotted.key=value"),
    ("=3", "is not of the form dotted.key=value"),
    ("horizon=ten", "horizon: Input should be a valid integer, unable to parse string as an integer (given: 'ten')"),
    ("iteratons=1", "iteratons: unknown key. Did you mean 'iterations'?"),
    ("teacher.privelege=50", "teacher.privelege: unknown key. Did you mean 'privilege'?"),
    ("lr=0.1", "lr: unknown key. Did you mean 'training.lr'?"),
    ("student.temperature=0.1", "student.temperature: unknown key. Did you mean 'sampling.temperature'?"),
    ("temperature=0.1", "temperature: unknown key. Did you mean 'student.sampling.temperature'?"),
    ("teacher.model=openai/x", "kind: expert does not have it; kind: model does"),
    ("training.beta=0.1", "method: sft does not have it; method: dpo or kto or sft+dpo or sft+kto does"),
    ("teacher=expert", "teacher: must be a mapping of keys to values, such as {kind: expert} (given: 'expert')"),
    ("environment=alfworld", "environment: must be a mapping of keys to values (given: 'alfworld')"),
    ("student=hf/some/model", "student: must be a mapping of keys to values (given: 'hf/some/model')"),
    ("environment.test=unseen", "environment.test: must be a list (given: 'unseen')"),
    ("baselines.react={model: openai/x}", "baselines.react: must be a list"),
    ("teacher={kind: model}", "teacher.model: must be given"),
    ("environment.name=alfwrld", "there is no environment 'alfwrld'. Did you mean 'alfworld'?"),
    ("teacher.kind=exprt", "there is no teacher 'exprt'. Did you mean 'expert'?"),
    ("training.method=dop", "there is no method 'dop'. Did you mean 'dpo'?"),
    ("demonstrations.from=tuter", "Did you mean 'tutor'?"),
    ("executor.kind=lokal", "Did you mean 'local'?"),
    ("environment.test=[unsen]", "alfworld has no split 'unsen'; it has train, unseen, valid. Did you mean 'unseen'?"),
    ("environment.train=trian", "Did you mean 'train'?"),
    ("environment.test=[valid_unseen]", "Give --set source=official (in a recipe: environment.options.source)"),
    ("student.model=Qwen/Qwen2.5-0.5B", "Did you mean 'hf/Qwen/Qwen2.5-0.5B'?"),
    ("student.model=Qwen2.5-0.5B", "Did you mean 'hf/Qwen2.5-0.5B' or 'openai/Qwen2.5-0.5B'?"),
    ("student.model=openai/gpt-4o", "training needs its weights; use hf/PATH-or-name or scratch"),
    ("teacher={kind: model, model: gpt-4o}", "Did you mean 'hf/gpt-4o' or 'openai/gpt-4o'?"),
    ("teacher={kind: model, model: opanai/gpt-4o}", "Did you mean 'openai'?"),
    ("teacher={kind: model, model: openai/gpt-4o}", "set the environment variable OPENAI_API_KEY"),
    ("teacher={kind: model, model: openai/m, endpoint: {base_url: 'localhost:8000'}}", "no address of an endpoint"),
    ("teacher={kind: model, model: openai/m, endpoint: {api_key: sk-1234}}", "Did you mean 'api_key_env'?"),
    ("teacher={kind: model, model: openai/m, budget: 3}", "teacher.budget: unknown key"),
    ("budget=20", "budget: must be a mapping of keys to values (given: 20)"),
    ("student.scratch={width: 36, heads: 8}", "width 36 must be a multiple of twice the heads (16)"),
    ("training.epochs=.inf", "finite number"),
    ("training.lora={}", "makes no sense for a scratch student"),
    ("demonstrations={from: file, path: nosuch.jsonl}", "demonstrations.path: cannot read nosuch.jsonl"),
    ("student.model=hf//nonexistent/path", "there is no folder '/nonexistent/path'"),
    ("training.logging=tensorboad", "'tensorboard'"),
]


@pytest.mark.parametrize(("setting", "said"), SETTINGS)
def test_a_slip_in_a_recipe(setting: str, said: str, told: Told) -> None:
    assert said in refused(told, "run", "recipe.yaml", "--set", setting)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- name: x\n", "must be a mapping of keys to values"),
        ("name: x\n\tenvironment: alfworld\n", "is not valid YAML: while scanning for the next token found character '\\t'"),
        ("name: x\nname: y\n", "key 'name' stands in line 1 and again in line 2"),
        ("name: x\n", "environment: must be given"),
        ("name: x\nenvironment: {}\n", "environment.name: must be given"),
        ("name: x\nenvironment: {name: alfworld}\nteacher:\n", "teacher: must be a mapping of keys to values"),
    ],
)
def test_a_slip_in_a_recipes_file(text: str, said: str, told: Told) -> None:
    Path("slip.yaml").write_text(text)
    assert said in refused(told, "run", "slip.yaml")


def test_blanks_around_a_setting_are_no_slip(told: Told) -> None:
    text = refused(told, "run", "recipe.yaml", "--set", " horizon = 3", "--set", "nosuch = 1")
    assert "horizon" not in text and "nosuch: unknown key" in text


@pytest.mark.parametrize("said", ["", "--dry-run"])
@pytest.mark.parametrize(
    ("setting", "why"),
    [("environment.train=trian", "no split 'trian'"), ("environment.options.source=offical", "(given: 'offical')")],
)
def test_names_are_checked_without_a_run_too(setting: str, why: str, said: str, told: Told) -> None:
    assert why in refused(told, "run", "recipe.yaml", "--set", setting, *([said] if said else []))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("sk-“abcdefgh”", "holds '“', which no header takes"),
        ("sk-abc\ndefgh", "holds '\\n', which no header takes"),
        ("sk-abc defgh", "holds ' ', which is in no key"),
        ('"sk-abcdefgh"', "holds '\"', which is in no key"),
        ("Bearer sk-abcdefgh", "holds ' ', which is in no key"),
        ("\ufeffsk-abcdefgh", "which no header takes"),
    ],
)
def test_a_key_that_was_pasted_wrongly(key: str, said: str, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", key)
    text = refused(told, "run", "recipe.yaml", *PAID)
    assert said in text and "OPENAI_API_KEY" in text and "abc" not in text


def test_a_key_or_a_login_in_the_wrong_place_is_not_shown(told: Told) -> None:
    pytest.importorskip("openai")
    text = refused(told, "run", "recipe.yaml", *PAID, "--set", "teacher.endpoint.api_key_env=sk-abcdefgh")
    assert "api_key_env: must be the name of an environment variable" in text and "sk-abc" not in text
    text = refused(told, "run", "recipe.yaml", *PAID, "--set", "teacher.endpoint.base_url=http://me:s3cret@127.0.0.1:1/v1")
    assert "nothing can be reached at http://127.0.0.1:1/v1" in text and "s3cret" not in text
    text = refused(told, "run", "recipe.yaml", *PAID, "--set", "teacher.endpoint.api_key_env=MY_KEY")
    assert "needs a key: set the environment variable MY_KEY" in text


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("http_proxy", "socks5://127.0.0.1:1", "pip install socksio"),
        ("HTTP_PROXY", "ftp://me:s3cret@proxy:21", "is no address of one"),
        ("HTTPS_PROXY", "http://me:s3cret@proxy:port", "is no address of one"),
        ("ALL_PROXY", "://nonsense", "is no address of one"),
        ("http_proxy", "http://me:s3cret@127.0.0.1:1", "through the proxy in http_proxy"),
        ("SSL_CERT_FILE", "/nonexistent.pem", "No such file or directory"),
    ],
)
def test_a_proxy_or_certificates_that_cannot_be_used(
    variable: str, value: str, said: str, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai")
    if "socks" in value:
        monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("OPENAI_API_KEY", "right")
    text = refused(told, "run", "recipe.yaml", *PAID, "--set", "teacher.endpoint.base_url=http://llm.example.invalid/v1")
    assert variable in text and said in text and "s3cret" not in text


EXTRAS = [
    (("play", "webshop"), ["msgspec"], "webshop"),
    (("validate", "webshop", "--limit", "1"), ["rapidfuzz"], "webshop"),
    (("run", "webshop-quickstart"), ["numpy"], "webshop"),
    (("run", "webshop-quickstart", "--dry-run"), ["msgspec"], "webshop"),
    (("study", "privilege", "--dry-run"), ["numpy"], "studies"),
    (("study", "theory"), ["numpy"], "studies"),
    (("validate", "intercode-sql", "--limit", "1"), ["scipy"], "intercode"),
    (("play", "intercode-generated"), ["sklearn"], "intercode"),
    (("run", "recipe.yaml"), ["torch", "transformers"], "train"),
    (("run", "recipe.yaml", "--set", "student.model=hf//nonexistent", "--set", "training.lora={}"), ["peft"], "train"),
    (
        ("run", "recipe.yaml", "--set", "student.model=hf//nonexistent", "--set", "training={lora: {}, quantize: 4bit}"),
        ["bitsandbytes"],
        "qlora",
    ),
    (("run", "recipe.yaml", *PAID), ["openai", "httpx2"], "endpoints"),
]


@pytest.mark.parametrize(("arguments", "missing", "extra"), EXTRAS, ids=lambda value: str(value))
def test_a_missing_extra_is_named(
    arguments: tuple[str, ...], missing: list[str], extra: str, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = ("leap_worlds", "leap_lab", "leap.models.openai", "leap.models.client", "leap.models.vllm", "leap.models.check")
    for name in [*sys.modules]:
        if name.startswith(ours) or name.partition(".")[0] in missing:
            monkeypatch.delitem(sys.modules, name)
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    assert f"pip install 'leap-agents[{extra}]'" in refused(told, *arguments)


def test_a_cache_that_cannot_be_made(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEAP_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/proc/nonexistent")
    assert "Set LEAP_CACHE to a folder that leap may keep files in" in refused(told, "validate", "alfworld", "--limit", "1")


def test_an_error_elsewhere_does_not_blame_the_cache(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error", "/somewhere/else")

    monkeypatch.setattr("leap.cli.doctor.print_doctor", fails)
    text = refused(told, "doctor")
    assert "/somewhere/else: Input/output error" in text and "LEAP_CACHE" not in text


SCRIPTS = [
    (lambda: leap.run("quikstart"), "Did you mean 'quickstart'?"),
    (lambda: leap.open("nosuch"), "nosuch is not a run directory"),
    (lambda: leap.run("recipe.yaml", set={"iteratons": 1}), "Did you mean 'iterations'?"),
    (lambda: leap.run("recipe.yaml", set=["iterations=1"]), "set must be a mapping"),  # type: ignore[arg-type]
    (lambda: leap.run({"name": "x"}), "environment: must be given"),
    (lambda: leap.run({"name": {"x"}}), "Object of type set"),
    (lambda: leap.run("recipe.yaml", environment=Corridor), "such as MyEnvironment()"),  # type: ignore[arg-type]
    (lambda: leap.run("recipe.yaml", environment="alfworld"), "environment.name"),  # type: ignore[arg-type]
    (lambda: leap.run("recipe.yaml", teacher="exprt"), "Did you mean 'expert'?"),
    (lambda: leap.check_env(Corridor), "such as MyEnvironment()"),  # type: ignore[arg-type]
    (lambda: leap.teacher("my teacher"), "cannot name a teacher"),
]


@pytest.mark.parametrize(("slip", "said"), SCRIPTS)
def test_a_slip_in_a_script(slip: Any, said: str) -> None:
    with pytest.raises(LeapError) as caught:
        slip()
    assert said in str(caught.value)


def test_a_name_that_leap_does_not_have() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'rollut'\. Did you mean 'rollout'\?"):
        leap.rollut  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
