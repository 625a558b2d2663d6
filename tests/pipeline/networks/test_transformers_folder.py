"""Folders of the transformers library from strangers: code that a configuration names is not run, nor asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.networks.checkpoint import BadCheckpoint
from pipeline.networks.transformers_folder import load_part, read_config


def test_a_tokenizer_that_names_code_of_its_own_runs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proof = tmp_path / "ran"
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(proof)!r}, 'w')\nclass Evil: pass\n")
    auto = {"AutoTokenizer": ["evil.Evil", None], "AutoConfig": "evil.Evil"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Evil", "auto_map": auto}))
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "auto_map": auto}))

    def asked(*words: object) -> str:
        raise AssertionError(f"asked on the terminal: {words}")

    monkeypatch.setattr("builtins.input", asked)
    with pytest.raises(BadCheckpoint, match="AutoTokenizer cannot be read"):
        load_part("AutoTokenizer", folder)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "damaged JSON"),
        ("[1]", "needs a JSON object, got list"),
        ("[" * 100_000, "damaged JSON"),
        ('{"model_type": "clap"}', "of model type 'clip', got 'clap'"),
    ],
)
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BadCheckpoint, match=told):
        read_config(tmp_path, "clip")
