from __future__ import annotations

import pytest

from nearfar import encoders
from nearfar.search import Index

ANIMALS = ("fox", "dog", "cat", "horse", "whale", "heron", "beetle")
VERBS = ("jumps", "sleeps", "sings", "runs", "hides", "waits")


def make_documents(count: int) -> list[dict]:
    return [
        {
            "id": f"d{number}",
            "text": f"the {ANIMALS[number % 7]} {VERBS[number // 7 % 6]} {number // 42} times 敏捷的狐狸",
            "number": number,
            "tags": ["a", {"b": None}],
        }
        for number in range(count)
    ]


DOCUMENTS = make_documents(100)


@pytest.fixture(scope="session")
def model():
    return encoders.load("static", texts=[d["text"] for d in make_documents(300)], dimension=16, device="cpu")


@pytest.fixture(scope="session")
def index(model, tmp_path_factory) -> Index:
    return Index.build(tmp_path_factory.mktemp("index") / "exact", model, DOCUMENTS)
