"""Texts with more columns on the command line: described by the check, texts for everything that wants no more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nearfar.cli import commands  # noqa: F401  registers them
from nearfar.cli.app import app
from nearfar.cli.data import read_any
from nearfar.errors import NearfarError

runner = CliRunner()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    path = tmp_path / "captions.csv"
    path.write_text("text,image\na cat,cat.jpg\na dog,dog.jpg\na cow,cow.jpg\n")
    return path


def test_the_check_describes_documents(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("One.\nTwo.\n\nThree.\n")
    shown = runner.invoke(app, ["data", "check", str(path), "--columns", "text,document=blank-line", "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert found["shape"] == "documents"
    assert "documents: 2, of 1 to 2 sentences" in found["description"]
    assert [finding["name"] for finding in found["findings"]] == ["single-sentence-documents"]
    plain = json.loads(runner.invoke(app, ["data", "check", str(path), "--json"]).stdout)
    assert (plain["shape"], plain["rows"]) == ("texts", 3)


def test_the_check_describes_captions_and_domains(tmp_path: Path) -> None:
    np.save(tmp_path / "cat.npy", np.ones(3))
    path = tmp_path / "captions.csv"
    path.write_text("text,image\na cat,cat.npy\nanother,\n")
    shown = runner.invoke(app, ["data", "check", str(path)])
    assert "images: 1 different, of 3 numbers each; 1 text without" in shown.output
    path = tmp_path / "reviews.csv"
    path.write_text("text,label,domain\ngood,1,books\nbad,0,books\nfine,,food\n")
    assert (
        "labelled texts"
        not in runner.invoke(app, ["data", "check", str(path), "--columns", "text,label,domain"]).output
    )
    shown = runner.invoke(app, ["data", "check", str(path), "--columns", "text,label,domain"])
    assert "target 'food' 1 text, 0 labelled" in shown.output


def test_pictures_are_an_error_of_the_check_and_texts_elsewhere(pictures: Path) -> None:
    with pytest.raises(NearfarError, match=r"is a picture(.|\n)*line 2, column 'image'"):
        runner.invoke(app, ["data", "check", str(pictures)], catch_exceptions=False, standalone_mode=False)
    assert read_any(pictures).shape == "texts"
    from nearfar import training
    from nearfar.training.prepare import read

    settings = training.TrainingSettings(data=str(pictures), output="x")
    assert read(settings, None, None)[0].shape == "texts"
