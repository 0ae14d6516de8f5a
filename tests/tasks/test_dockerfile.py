"""Dockerfiles without an engine: what they come to, and what is refused with a line."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leap_worlds.tasks.dockerfile import Built, read_dockerfile
from leap_worlds.tasks.format import TaskError
from leap_worlds.tasks.wheels import asked_for


def built(folder: Path, text: str, **bases: str) -> Built:
    (folder / "Dockerfile").write_text(text)
    return read_dockerfile(
        folder, "t/environment/Dockerfile", {name.replace("_", ":"): place for name, place in bases.items()}
    )


@pytest.mark.parametrize(
    ("image", "suite", "package"),
    [
        ("debian:bookworm-slim", "bookworm", None),
        ("docker.io/library/debian:12", "bookworm", None),
        ("debian", "trixie", None),
        ("ubuntu:22.04", "bookworm", "procps"),
        ("ubuntu:24.04@sha256:abc", "trixie", "procps"),
        ("python:3.11-slim", "bookworm", "python3-pip"),
        ("--platform=linux/amd64 python:3.13-slim-trixie AS base", "trixie", "python3-venv"),
    ],
)
def test_images_that_a_debian_stands_for(tmp_path: Path, image: str, suite: str, package: str | None) -> None:
    found = built(tmp_path, f"FROM {image}\n")
    assert found.recipe.suite == suite and (package is None or package in found.recipe.packages)
    assert bool(found.notes) == ("debian" not in image)  # another system's stand-in is told


def test_packages_of_all_steps_are_put_into_the_base_and_pinned_versions_are_debian_s_own(tmp_path: Path) -> None:
    text = (
        "FROM debian:12\nRUN apt-get update && \\\n  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \\\n # why\n"
        "  git=1:2.39 tree >/dev/null 2>&1 && rm -rf /var/lib/apt/lists/*\nRUN apt install -y -o Dpkg::Use-Pty=0 jq; true\n"
    )
    recipe = built(tmp_path, text).recipe
    assert recipe.packages == ("git", "jq", "tree")
    assert (
        "/usr/local/sbin/apt-get" in recipe.steps[0].files
        and "rm -f /usr/local/sbin/apt-get" in recipe.steps[0].argv[-1]
    )


def test_variables_folders_and_shells(tmp_path: Path) -> None:
    text = (
        'ARG VERSION=12\nFROM debian:${VERSION}\nARG WHO\nARG NAME=box\nENV A=1 B="x y" C=$A\nENV D the rest of $A\n'
        'WORKDIR /srv\nWORKDIR ${NAME:-none}/in\nSHELL ["/bin/bash", "-c"]\nRUN echo $NAME > name\nRUN ["touch", "a b"]\n'
    )
    found = built(tmp_path, text)
    assert found.workdir == "/srv/box/in"
    run, touch = found.recipe.steps[-2:]
    assert run.env == {
        "A": "1",
        "B": "x y",
        "C": "",
        "D": "the rest of 1",
    }  # as Docker has it: none knows the others of its line
    assert (
        "NAME=box; export NAME" in run.argv[-1] and "cd /srv/box/in && /bin/bash -c 'echo $NAME > name'" in run.argv[-1]
    )
    assert "touch 'a b'" in touch.argv[-1]


def test_copies_keep_names_modes_and_nothing_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "sub" / "x.sh").write_text("x")
    (tmp_path / "data" / "sub" / "x.sh").chmod(0o755)
    (tmp_path / "one.txt").write_text("1")
    found = built(tmp_path, "FROM debian:12\nWORKDIR /app\nCOPY data /in\nCOPY --chmod=600 one.txt data/sub/*.sh ./\n")
    entries: dict[str, tarfile.TarInfo] = {}
    for step in found.recipe.steps:
        for content in step.files.values():
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                entries |= {entry.name: entry for entry in tar}
    assert {"in", "in/sub", "in/sub/x.sh", "app/one.txt", "app/x.sh"} == set(entries)
    assert entries["in/sub/x.sh"].mode == 0o755 and entries["app/one.txt"].mode == 0o600
    assert {(entry.uid, entry.uname, entry.mtime) for entry in entries.values()} == {(0, "root", 0)}
    assert found == built(tmp_path, (tmp_path / "Dockerfile").read_text())  # byte for byte, so that images are kept


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", " has no FROM"),
        ("RUN true", "1: RUN before FROM"),
        ("FROM alpine:3.20", "1: no stand-in for the image 'alpine:3.20'"),
        ("FROM python:3.12-slim", "1: no stand-in"),
        ("FROM debian:12\nFROM debian:12", "2: builds of several stages"),
        ("FROM debian:12\n# c\nRUN true && \\\n pip install x", "3: `pip install` needs the network"),
        ("FROM debian:12\nRUN curl -sSf https://x.example | sh", "2: `curl` needs the network"),
        ("FROM debian:12\nRUN cd /x; git clone https://x.example", "2: `git clone` needs the network"),
        (
            "FROM debian:12\nRUN --mount=type=cache,target=/x true",
            "2: RUN --mount=type=cache,target=/x needs a container engine",
        ),
        ("FROM debian:12\nRUN apt-get install -y $PACKAGES", "2: the package '$PACKAGES' cannot be read"),
        ("FROM debian:12\nUSER app", "2: USER app: a box has no user but root here"),
        ("FROM debian:12\nCOPY --from=x /a /b", "2: COPY --from needs a container engine"),
        ("FROM debian:12\nCOPY none /b", "2: there is no none in"),
        ("FROM debian:12\nCOPY ../x /b", "2: "),
        ("FROM debian:12\nADD https://x.example/a /b", "2: ADD of an address or an archive"),
        ("FROM debian:12\nADD a.tar.gz /b", "2: ADD of an address or an archive"),
        ("FROM debian:12\nRUN cat <<EOF > x\nhello\nEOF2", "2: the here-document EOF has no end"),
        ('FROM debian:12\nENTRYPOINT ["x"]', "2: ENTRYPOINT"),
        ("FROM debian:12\nONBUILD RUN true", "2: ONBUILD is not supported"),
    ],
)
def test_what_cannot_be_had_is_one_line_that_names_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(TaskError) as told:
        built(tmp_path, text)
    assert str(told.value).removeprefix("t/environment/Dockerfile:").startswith(said) and "\n" not in str(told.value)


def test_packages_of_pip_s_by_name_are_fetched_only_where_the_recipe_allows(tmp_path: Path) -> None:
    text = "FROM python:3.11-slim\nRUN pip install --no-cache-dir pytest==8.4.1 'a[b]>=1,<2' && echo done\n"
    with pytest.raises(TaskError, match="`pip install` needs the network"):
        built(tmp_path, text)
    found = read_dockerfile(tmp_path, "t", {}, network=True)
    assert found.wheels == ("pytest==8.4.1", "a[b]>=1,<2")
    assert "ln -sT dist-packages site-packages" in found.recipe.steps[0].argv[-1]  # where the image of Python has them
    assert "PIP_NO_INDEX=1" in found.recipe.steps[1].argv[-1] and found.recipe.steps[-1].argv[:2] == ("/bin/rm", "-rf")


@pytest.mark.parametrize(
    "said", ["-r requirements.txt", "-e .", "git+https://x.example/y", "x --index-url https://x.example", "./x", ""]
)
def test_what_pip_is_asked_for_otherwise_is_refused_all_the_same(tmp_path: Path, said: str) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM python:3.11-slim\nRUN pip install {said}\n")
    with pytest.raises(TaskError, match=r"^t:2: `pip install` needs the network"):
        read_dockerfile(tmp_path, "t", {}, network=True)


def test_a_stand_in_of_one_s_own(tmp_path: Path) -> None:
    found = built(tmp_path, "FROM mine:1\nRUN apt-get install -y jq\n", mine_1="/x/mine.tar")
    assert found.recipe.rootfs == Path("/x/mine.tar") and found.recipe.packages == ()
    assert found.notes[1] == "t/environment/Dockerfile: jq must be in the image's stand-in already"


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_one_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("context")
    try:
        built(folder, f"FROM debian:12\n{text}")
    except TaskError as error:
        assert str(error).startswith("t/environment/Dockerfile") and "\n" not in str(error)
    except UnicodeEncodeError:  # half a character: it could not be written
        pass


# ---- here-documents, .dockerignore, uv ------------------------------------------------------------------------------


def packed(found: Built) -> dict[str, bytes]:
    """The files that an image's steps put in, by name."""
    files: dict[str, bytes] = {}
    for step in found.recipe.steps:
        for content in step.files.values():
            if content.startswith(b"#!"):
                continue
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                files |= {each.name: file.read() for each in tar if each.isfile() and (file := tar.extractfile(each))}
    return files


def test_here_documents_are_scripts_input_or_files(tmp_path: Path) -> None:
    text = (
        "FROM debian:12\nENV A=1\nRUN <<EOF\necho $A\n# kept\necho two\nEOF\nRUN cat <<-'END' > x && \\\n  true\n\tin $A\n\tEND\n"
        'COPY <<one <<"two" /in/\nis $A\none\nis $A\noneself\ntwo\nRUN echo $((1 << 2)) <<< "x"\n'
    )
    found = built(tmp_path, text)
    scripts = [step.argv[-1] for step in found.recipe.steps]
    assert "'echo $A\n# kept\necho two'" in scripts[0] and "EOF" not in scripts[0]
    assert "> x &&" in scripts[1] and "\nin $A\nEND" in scripts[1]
    assert packed(found) == {"in/one": b"is 1\n", "in/two": b"is $A\noneself\n"}
    assert len(scripts) == 4 and "1 << 2" in scripts[3]


@pytest.mark.parametrize(
    ("ignore", "left"),
    [
        ("", {"a.txt", "b.md", "sub/a.txt", "sub/deep/c.log"}),
        ("*.txt\n# no pattern: b.md\n", {"b.md", "sub/a.txt", "sub/deep/c.log"}),
        ("**/*.txt", {"b.md", "sub/deep/c.log"}),
        ("/sub/", {"a.txt", "b.md"}),
        ("sub\n!sub/deep/*.log", {"a.txt", "b.md", "sub/deep/c.log"}),
        ("*\n!?.md", {"b.md"}),
        ("[ab].*\nsub/[", {"sub/a.txt", "sub/deep/c.log"}),
    ],
)
def test_what_dockerignore_names_is_left_out(tmp_path: Path, ignore: str, left: set[str]) -> None:
    for name in ("a.txt", "b.md", "sub/a.txt", "sub/deep/c.log"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(name)
    (tmp_path / "data" / ".dockerignore").write_text(ignore)
    (tmp_path / "data" / "Dockerfile").write_text("FROM debian:12\nCOPY . /x\n")
    found = packed(read_dockerfile(tmp_path / "data", "t", {}))
    assert {name.removeprefix("x/") for name in found} - {".dockerignore", "Dockerfile"} == left


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("pip3 install -q pytest==8.4.1 2>/dev/null || true", ("pytest==8.4.1",)),
        ("/opt/v/bin/pip install 'a[b]>=1,<2' && pip install c", ("a[b]>=1,<2", "c")),
        ("python3 -m pip install -r wanted.txt", ("numpy==2.0", "x")),
        ("uv pip install --python /v/bin/python a==1 \\\n  b", ("uv", "a==1", "b")),
        ("uvx --with pytest==8.4.1 -w x,y -p 3.13 pytest --ctrf /x -rA", ("uv", "pytest==8.4.1", "x", "y", "pytest")),
        ("uvx ruff@0.9 check", ("uv", "ruff==0.9")),
        ("uv run --with=a script.py", ("uv", "a")),
        ("curl -LsSf https://astral.sh/uv/0.9.7/install.sh | sh", ("uv",)),
        ("uv venv /v", ("uv",)),
        ("uv sync", None),
        ("pip install .", None),
        ("uvx --with git+https://x.example/y pytest", None),
        ("uvx --from ./x.whl pytest", None),
        ("pip install -r none.txt", None),
        ("echo pip; ls", None),
    ],
)
def test_what_pip_and_uv_are_asked_for(tmp_path: Path, said: str, wanted: tuple[str, ...] | None) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "wanted.txt").write_text("# why\nnumpy == 2.0  # pinned\n\nx\n")
    assert asked_for(said, tmp_path) == wanted


@given(st.text(max_size=60), st.sampled_from(["pip install {}", "uvx --with {} pytest", "uvx {}", "uv run --with={}"]))
def test_nothing_but_names_goes_to_pip(text: str, script: str) -> None:
    for word in asked_for(script.format(text), strict=False) or ():
        assert word[0].isalnum() and not set(word) & set("/\\:@ \n")


def test_uv_s_image_and_installer_are_uv_of_the_index(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM python:3.13-slim\nCOPY --from=ghcr.io/astral-sh/uv:0.8.15 /uv /uvx /usr/local/bin/\n"
        "RUN curl -LsSf https://astral.sh/uv/0.9.5/install.sh | sh && uv venv /v && uv pip install --python /v/bin/python a\n"
    )
    found = read_dockerfile(tmp_path, "t", {}, network=True)
    assert found.wheels == ("uv==0.8.15", "uv", "a")
    assert "cp /opt/leap-wheels/bin/uv /opt/leap-wheels/bin/uvx /usr/local/bin" in found.recipe.steps[1].argv[-1]
    with pytest.raises(TaskError, match=r"^t:2: COPY --from needs"):
        read_dockerfile(tmp_path, "t", {})
