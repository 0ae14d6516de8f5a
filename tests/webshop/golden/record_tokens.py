"""Records tokens.json.gz from Lucene itself. Needed only to record anew.

    python tests/webshop/golden/record_tokens.py anserini-0.14.3-fatjar.jar

The jar is in the wheel of pyserini 0.17.0; `java` must be 11 or newer.
"""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

from leap_worlds.webshop.search.tokenizer import read_classes

HERE = Path(__file__).parent
BY_HAND = [
    "Women's non-slip size 7.5 t-shirt, 3,000 mAh; USB-C 3.1 Gen-2!",
    "the children’s ＇s toys' 's S's a.b.c. U.S.A. foo:bar x_y __ _a_ 1_2 3.x y.3 1,2,3;4",
    "İstanbul ΣΑΣ STRASSE ß ẞ Ǆ ﬁne ℹ️ ★★★★☆ ™ © 100% 5° 6\" x 4' ½ ²",
    "日本語 テスト ひらがな ｶﾀｶﾅ 한국어 ภาษาไทย ភាសាខ្មែរ שלום צה\"ל ג'ירפה",
    "👍🏽 👨‍👩‍👧‍👦 🇺🇸🇩 #️⃣ 1️⃣ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ❤️ ☎︎ a\u200db a\u00adb \ufeff",
    "generalizations oscillators hopping falling agreed feed ties cries skies dying sky say enjoy relational possibly apologies",
    "running runs runner easily fairly happiness hopefulness electricity adjustment replacement dependent adoption bowl controll",
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to was will"
    " with",
    "x" * 300 + " " + "a.b" * 120 + " " + "\U00010400" * 200 + " " + "1," * 200,
]
ENDINGS = [
    "s", "es", "ies", "ing", "ed", "eed", "y", "ly", "li", "bli", "logi", "ational", "tional", "izer", "ation",
    "ization", "ness", "ful", "ive", "ible", "able", "ment", "ement", "ent", "ion", "al", "ic", "iti", "iviti",
    "biliti", "ous", "ousli", "ll", "e", "ee", "ate", "ize", "ism",
]  # fmt: skip


def texts() -> list[str]:
    """What is recorded: by hand, random strings of all classes, and random words with endings that Porter knows."""
    random_ = random.Random(0)
    spans: dict[str, list[tuple[int, int]]] = {}
    for first, last, letter in read_classes():
        spans.setdefault(letter, []).append((first, last))
    letters = sorted(spans)

    def character() -> str:
        if random_.random() < 0.3:
            return random_.choice("abcyeisS'.,:;_ 019\"-")
        return chr(random_.randint(*random_.choice(spans[random_.choice(letters)])))

    mixed = ["".join(character() for _ in range(random_.randint(1, 14))) for _ in range(1500)]
    words = [
        "".join(random_.choice("aeiouybcdglmnstvwxz") for _ in range(random_.randint(0, 6)))
        + "".join(random_.choice(ENDINGS) for _ in range(random_.randint(0, 3)))
        for _ in range(3000)
    ]
    return BY_HAND + mixed + [" ".join(words[at : at + 30]) for at in range(0, len(words), 30)]


def run(jar: str, what: str, lines: list[str]) -> list[list[str]]:
    """Lucene's tokens or terms of each text."""
    sent = "\n".join(line.encode("utf-16-be", "surrogatepass").hex() for line in lines) + "\n"
    command = ["java", "-cp", jar, str(HERE / "RecordTokens.java"), what]
    got = subprocess.run(command, input=sent, capture_output=True, text=True, check=True).stdout.splitlines()
    return [[bytes.fromhex(token).decode("utf-16-be", "surrogatepass") for token in line.split()] for line in got]


if __name__ == "__main__":
    recorded = texts()
    rows = zip(recorded, run(sys.argv[1], "tokens", recorded), run(sys.argv[1], "terms", recorded), strict=True)
    content = json.dumps([{"text": text, "tokens": tokens, "terms": terms} for text, tokens, terms in rows])
    (HERE / "tokens.json.gz").write_bytes(gzip.compress(content.encode(), mtime=0))
