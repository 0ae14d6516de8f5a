"""How alike two outputs are: the cosine of their TF-IDF vectors, as upstream computes it."""

from __future__ import annotations

from leap.errors import PrerequisiteError


def similarity(agent: str, gold: str | None) -> float:
    """Cosine of the outputs' TF-IDF vectors over the two of them, by scikit-learn with its defaults.

    Order, case, punctuation and words of one character do not matter. Where no word of two characters is left, or there is
    no gold output, only equal texts are alike (upstream: any exception).

    Args:
        agent: The student's last output.
        gold: The gold command's output; None where it could not be read.

    Returns:
        A value in [0, 1], up to rounding.

    Raises:
        PrerequisiteError: scikit-learn is not installed.
    """
    if gold is None:
        return 0.0
    vectorizer = _vectorizer()()
    try:
        vectors = vectorizer.fit_transform([agent, gold])
    except ValueError:  # an empty vocabulary
        return 1.0 if agent == gold else 0.0
    return float((vectors * vectors.T).toarray()[0][1])


def _vectorizer() -> type:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise PrerequisiteError(
            f"the reward needs scikit-learn ({error}); pip install 'leap-agents[intercode]'."
        ) from error
    return TfidfVectorizer
