"""A checkpoint of a run for others: with a model card that says how it was trained and how it did, to the Hub or a folder."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import yaml

from leap import __version__
from leap.core import Correction
from leap.errors import PrerequisiteError, RunError
from leap.evaluation import read_evaluations
from leap.files import Journal, read_json, write_json, write_text
from leap.recipe import Recipe
from leap.runs.directory import RunDirectory, marker
from leap.runs.open import recipe_of
from leap.stats import clustered_share

_PUBLIC = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.txt", "*.model")
"""What a checkpoint is made of. Nothing else leaves the machine."""

_ABOUT = """\
A language-model agent trained by LEAP (Choudhury & Sodhi, arXiv 2410.05434): a teacher that sees a privileged state \
corrects the student's own episodes, and the student learns from the corrections. It acts without that state."""


def push_to_folder(run: RunDirectory, i: int, folder: Path, *, merge: bool = False) -> Path:
    """Copies pi_i with its model card into a folder that does not hold anything, and returns the card.

    Args:
        run: The run directory.
        i: Which pi_i.
        folder: Where to.
        merge: Write an adapter as a whole checkpoint, in its base's type: the weights that played.

    Raises:
        PrerequisiteError: The base of the adapter to be merged is not here.
        RunError: pi_i is not trained yet, or the folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is there already; choose another folder.")
    recipe, checkpoint = _trained(run, i)
    folder.mkdir(parents=True, exist_ok=True)
    merge = merge and (checkpoint / "adapter_config.json").exists()
    if merge:
        from leap.models.checkpoints import load_causal_lm, look_in
        from leap.models.gguf import unpacked

        look_in(unpacked(recipe.student.base))
        for part in load_causal_lm(str(checkpoint), device="cpu", merge=True):  # the model and its tokenizer
            part.save_pretrained(folder)
    for path in () if merge else (path for pattern in _PUBLIC for path in checkpoint.glob(pattern)):
        shutil.copy2(path, folder / path.name)
    if (adapter := folder / "adapter_config.json").exists():
        values = json.loads(adapter.read_text(encoding="utf-8"))
        named = str(values.get("base_model_name_or_path") or "")
        if Path(named).is_absolute():  # a path of this machine: training writes no others
            base = named if recipe.student.from_scratch else recipe.student.base
            local = Path(base).is_absolute() or _base(recipe, checkpoint)[0]
            write_json(adapter, values | {"base_model_name_or_path": Path(base).name if local else base})
    write_text(folder / "README.md", model_card(recipe, run, i, merged=merge))
    return folder / "README.md"


def push_to_hub(
    run: RunDirectory, i: int, repo: str, *, private: bool = True, merge: bool = False, endpoint: str | None = None
) -> str:
    """Uploads pi_i with its model card to the Hugging Face Hub, with the token of `hf auth login` or $HF_TOKEN.

    Args:
        run: The run directory.
        i: Which pi_i.
        repo: `owner/name`; made if it is not there.
        private: Make it so that only its owner sees it.
        merge: As `push_to_folder` has it.
        endpoint: Another Hub; $HF_ENDPOINT by default.

    Returns:
        Address of the commit.

    Raises:
        PrerequisiteError: huggingface_hub is not installed, there is no token, or the Hub refuses.
        RunError: pi_i is not trained yet.
    """
    _trained(run, i)
    try:
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
    except ImportError as error:
        raise PrerequisiteError(
            "pushing needs huggingface_hub, which is not installed: pip install 'leap-agents[train]'"
        ) from error
    if get_token() is None:
        raise PrerequisiteError("no Hugging Face token: give `hf auth login`, or set $HF_TOKEN.")
    api = HfApi(endpoint=endpoint, library_name="leap-agents", library_version=__version__)
    message = f"pi_{i} of {run.root.resolve().name}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "checkpoint"
        push_to_folder(run, i, folder, merge=merge)
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            return str(api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message).commit_url)
        except HFValidationError as error:
            raise PrerequisiteError(f"{repo!r} is not a name on the Hub; give `owner/name`.") from error
        except HfHubHTTPError as error:
            status = error.response.status_code
            denied = status in {401, 403, 404}
            advice = "check the token (`hf auth whoami`) and that it may write there" if denied else "try again later"
            raise PrerequisiteError(f"the Hub refused {repo!r} ({status}): {advice}.") from error
        except (HTTPError, OSError) as error:
            reason = type(error).__name__
            raise PrerequisiteError(f"the Hub cannot be reached ({reason}); try again, or use --to-folder.") from error


def _trained(run: RunDirectory, i: int) -> tuple[Recipe, Path]:
    """The run's recipe and the folder of pi_i."""
    recipe, checkpoint = recipe_of(run.root), run.checkpoint(i)
    if not marker(checkpoint).exists():
        raise RunError(f"{checkpoint} is missing; train iteration {i} first.")
    run.manifest.check(checkpoint, whole=True)
    run.manifest.check()
    return recipe, checkpoint


def model_card(recipe: Recipe, run: RunDirectory, i: int, *, merged: bool = False) -> str:
    """The card of pi_i: what it is, how it was trained, what it scores on each split with n and intervals, and how often
    the reasons it was taught name what a student cannot know."""
    training, teacher, world = recipe.training, recipe.teacher, recipe.environment.name
    base = None if recipe.student.from_scratch else recipe.student.base
    head = {
        "library_name": "peft" if training.lora is not None and not merged else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["leap", "agents", "imitation-learning", world],
    }
    cloned, told = i == 0, "none: random weights"
    if base is not None:
        local, what = _base(recipe, run.checkpoint(i))
        head |= {} if local else {"base_model": base}
        told = (f"a local model, {Path(base).name}" if local else base) + what
    facts = {
        "iteration": f"{i} of {recipe.iterations}" + (" (behaviour cloning)" if cloned else ""),
        "base model": told,
        "environment": world,
        "method": "sft (behaviour cloning)" if cloned else training.method,
        "teacher": teacher.kind,
        "privilege level": f"{teacher.privilege} of 100",
        "seed": str(recipe.seed),
        "key": str(read_json(marker(run.checkpoint(i))).get("key", "")),
        "made with": f"leap {__version__}",
    }
    lines = ["---", yaml.safe_dump(head, sort_keys=False).strip(), "---", ""]
    lines += [f"# {recipe.name}, pi_{i}", "", _ABOUT, ""]
    lines += ["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in facts.items()), ""]
    lines += ["## Scores", "", *_scores(recipe, run, i), "", "## Leak rate", "", *_leaks(run, i)]
    return "\n".join(lines) + "\n"


def _scores(recipe: Recipe, run: RunDirectory, i: int) -> list[str]:
    if not (evaluations := read_evaluations(run.evaluation(f"pi_{i}"))):
        return ["Not evaluated."]
    use = dict.fromkeys(recipe.environment.test, "test") | {recipe.environment.validation: "validation"}
    lines = ["| split | used for | n | success | 95 % interval | actions (failure = horizon) |", f"|{'---|' * 6}"]
    for evaluation in evaluations:
        score = evaluation.overall
        interval = f"{score.low:.1%} to {score.high:.1%}"
        actions = f"{score.actions:.1f} ± {score.actions_ci:.1f} of {evaluation.horizon}"
        lines.append(
            f"| {_cell(evaluation.split)} | {use.get(evaluation.split, '')} | {score.n} | {score.success:.1%} "
            f"| {interval} | {actions} |"
        )
    return [*lines, "", "One seed; the intervals are Wilson's, over the tasks of a split."]


def _leaks(run: RunDirectory, i: int) -> list[str]:
    """A table of D_1..D_i: of the corrections that trained, how many name what the student had not seen."""
    if i == 0:
        return ["Trained on demonstrations alone: no teacher has corrected it."]
    lines = ["| iteration | corrections | kept | kept with a leak | 95 % interval |", "|---|---|---|---|---|"]
    for j in range(1, i + 1):
        corrections = Journal(run.corrections(j), Correction)
        by_episode: dict[str, list[bool]] = {}  # of each kept one, whether it leaks; steps of an episode hang together
        for correction in (one for one in corrections if one.kept):
            by_episode.setdefault(correction.episode, []).append(bool(correction.leaked))
        found = clustered_share((sum(leaks), len(leaks)) for leaks in by_episode.values())
        told = "0 | none kept | |"
        if found is not None:
            value, low, high, n, _ = found
            told = f"{n} | {round(value * n)} ({value:.1%}) | {low:.1%} to {high:.1%} |"
        lines.append(f"| {j} | {len(corrections)} | {told}")
    said = "A leak is an entity that a correction's reason names and the student's history does not"
    return [*lines, "", f"{said}; intervals by episode."]


def _cell(text: str) -> str:
    """Text that stays in its table cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _base(recipe: Recipe, checkpoint: Path) -> tuple[bool, str]:
    """Whether a checkpoint was trained from a folder of this machine, and not from the Hub; and which content or revision of
    it that was, as training noted it. Whatever stands where the card is written says nothing of it."""
    base, noted = recipe.student.base, str(read_json(marker(checkpoint)).get("base", "")).partition("/")[2]
    name, _, revision = noted.partition("@")
    if noted and name != base:
        return True, f" (content {noted})"
    return not noted and Path(base).is_absolute(), f" (revision {revision})" if revision else ""
