"""Private things are found wherever they stand, and said without being repeated."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin
from safetensors.torch import load_file, save_file

from hfgpt.errors import UserError
from hfgpt.hub.allow_list import PushedFile, files_to_push
from hfgpt.hub.secrets import Machine, find_private, refuse_private

MACHINE = Machine(
    home="/data/people/ada1815",
    user="ada1815",
    host="engine.analytical.org",
    top_folders=frozenset({"data", "home", "scratch", "usr", "etc"}),
    secrets=("correct-horse-battery",),
)

# Built of parts, so that no scanner of this repository takes them for real ones.
LETTERS = "abcDEFghiJKLmnoPQRstuVWXyz0123456789"
SECRETS = {
    "Hugging Face token": "hf_" + LETTERS[:34],
    "AWS Access Key": "AKIA" + "IOSFODNN7EXAMPL1",
    "GitHub Token": "ghp_" + LETTERS,
    "GitLab Token": "glpat-" + LETTERS[:20],
    "Slack Token": "xoxb-" + "1234567890-1234567890-" + LETTERS[:24],
    "Private Key": "-----BEGIN RSA PRIVATE " + "KEY-----",
    "JSON Web Token": "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0In0." + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "Stripe Access Key": "sk_live_" + LETTERS[:24],
    "Basic Auth Credentials": "https://ada:" + "lovelace1" + "@example.org/data",
    "API key": "github_pat_" + LETTERS + LETTERS,
    "password": "password: " + "Tr0ub4dor&3",
    "in use": "the key is correct-horse-battery",
}


def found_in(name: str, text: str, repo_id: str = "team/model") -> list[str]:
    found = find_private([PushedFile(name, Path(name), text.encode())], repo_id, MACHINE)
    return [str(finding) for finding in found]


@pytest.mark.parametrize(
    "name", ["README.md", "run_config.yaml", "results.json", "tokenizer.json", "modeling_hfgpt.py"]
)
@pytest.mark.parametrize("kind", [kind for kind in SECRETS if kind != "password"])
def test_each_kind_of_secret_is_found_in_every_text_file(kind: str, name: str) -> None:
    (finding,) = found_in(name, f"one\ntwo\n  x = {SECRETS[kind]}\n")
    assert kind in finding
    assert finding.endswith(f"{name}, line 3")


@pytest.mark.parametrize("escape", [r"\n", r"\t", r"\u000a", r"\x0a"])
@pytest.mark.parametrize("private", [SECRETS["Hugging Face token"], "/home/ada/tok", "ada1815"])
def test_what_stands_behind_an_escape_is_found(private: str, escape: str) -> None:
    (finding,) = found_in("tokenizer_config.json", '{"chat_template": "hi' + escape + private + '"}')
    assert finding.endswith("tokenizer_config.json, line 1")
    assert private not in finding


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("run_config.yaml", SECRETS["password"]),
        ("run_config.yaml", "api_key: 1b2c3d4e5f6a"),
        ("card_facts.json", '"db_password": "Tr0ub4dor&3",'),
    ],
)
def test_a_value_with_a_secret_sounding_name_is_found(name: str, line: str) -> None:
    assert found_in(name, line) == [f"a password or key in {name}, line 1"]


@pytest.mark.parametrize(
    "line", ["password: null", "password: ''", "api_key: ${API_KEY}", "token: <your token>", "secret: $SECRET"]
)
def test_what_stands_for_a_secret_is_none(line: str) -> None:
    assert found_in("run_config.yaml", line) == []


@pytest.mark.parametrize(
    "text",
    [
        "/home/ada/runs",
        "/Users/ada/runs",
        r"C:\Users\ada\runs",
        '"C:\\\\Users\\\\ada"',
        "file:///home/ada/x",
        "/data/people/ada1815/letters",
        "/scratch/acme/letters.txt",
        r'"\/scratch\/acme\/letters.txt"',
        "at=/scratch/acme",
    ],
)
def test_folders_of_this_machine_are_found(text: str) -> None:
    assert "a home folder or an absolute path of this machine in README.md, line 1" in found_in("README.md", text)


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/home/ada and/or https://example.org/data/x",
        "runs/data/final",
        "org/data/model",
        "/usr/bin/env python",
        "#!/usr/bin/env bash",
        "</data/x>",
        "~/.cache/huggingface",
        "1/2/3",
        "/v1/chat/completions",
    ],
)
def test_urls_relative_paths_and_folders_of_every_machine_are_not(text: str) -> None:
    assert found_in("README.md", text) == []


def test_names_of_account_and_machine_are_found_as_whole_words() -> None:
    assert found_in("README.md", "trained by ada1815 on engine") == [
        "the name of this account in README.md, line 1",
        "the name of this machine in README.md, line 1",
    ]
    assert found_in("README.md", "engineers and ada18150") == []


def test_the_name_that_the_model_is_pushed_under_is_public() -> None:
    assert found_in("README.md", "load ada1815/model", repo_id="ada1815/model") == []
    assert found_in("README.md", "load team/engine", repo_id="team/engine") == []


def test_pieces_of_words_and_code_may_contain_the_names() -> None:
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "modeling_hfgpt.py"):
        assert found_in(name, '"engine": 5,') == []


def test_metadata_of_weights_is_searched(model_folder: Path) -> None:
    path = model_folder / "model.safetensors"
    save_file(load_file(path), path, metadata={"format": "pt", "from": "/home/ada/secret"})
    with pytest.raises(UserError, match=r"\(its metadata\) in model\.safetensors"):
        refuse_private(files_to_push(model_folder).files, "team/model", MACHINE)


@pytest.mark.parametrize("compressed", [False, True])
def test_comments_in_pictures_are_searched(run_folder: Path, compressed: bool) -> None:
    comments = PngImagePlugin.PngInfo()
    comments.add_text("Comment", SECRETS["GitHub Token"], zip=compressed)
    Image.new("RGB", (8, 8)).save(run_folder / "loss_curve.png", pnginfo=comments)
    with pytest.raises(UserError, match=r"a GitHub Token \(its comments\) in loss_curve\.png"):
        refuse_private(files_to_push(run_folder).files, "team/model", MACHINE)


def test_the_sentence_names_files_and_lines_and_no_secret(model_folder: Path) -> None:
    (model_folder / "README.md").write_text("\n".join(["a", *SECRETS.values()]))
    with pytest.raises(UserError) as stopped:
        refuse_private(files_to_push(model_folder).files, "team/model", MACHINE)
    sentence = str(stopped.value)
    assert "a Hugging Face token in README.md, line 2" in sentence
    assert "and 6 more" in sentence
    assert "\n" not in sentence
    assert not [secret for secret in SECRETS.values() if secret in sentence or secret.split()[-1] in sentence]


def test_text_that_cannot_be_read_is_not_sent(model_folder: Path) -> None:
    (model_folder / "README.md").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match="text that is not UTF-8"):
        refuse_private(files_to_push(model_folder).files, "team/model", MACHINE)


def test_a_saved_model_has_nothing_private(run_folder: Path) -> None:
    assert find_private(files_to_push(run_folder).files, "team/model", MACHINE) == []


def test_gpt2s_whole_vocabulary_gives_no_false_alarm(test_data: Path, tmp_path: Path) -> None:
    for name in ("encoder.json", "vocab.bpe"):
        shutil.copy(test_data / "gpt2" / name, tmp_path)
    vocabulary = json.loads((tmp_path / "encoder.json").read_text(encoding="utf-8"))
    whole = json.dumps({"model": {"vocab": vocabulary}}, ensure_ascii=False, indent=2)
    files = [PushedFile(name, tmp_path / name) for name in ("encoder.json", "vocab.bpe")]
    files.append(PushedFile("tokenizer.json", tmp_path / "none", whole.encode()))
    assert find_private(files, "team/model", MACHINE) == []


def test_secrets_in_use_are_those_of_the_environment_and_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {
        "WANDB_API_KEY": "0123456789abcdef0123",
        "TOKENIZER_NAME": "a-long-name-of-a-tokenizer",
        "SSH_KEY": "short",
        "HF_TOKEN": "hf_whatever_it_is",
    }.items():
        monkeypatch.setenv(name, value)
    secrets = Machine.here().secrets
    assert {"0123456789abcdef0123", "hf_whatever_it_is"} <= set(secrets)
    assert not {"a-long-name-of-a-tokenizer", "short"} & set(secrets)
    assert "hf_whatever" not in repr(Machine.here())


def machine_of(user: str = "", host: str = "") -> Machine:
    return Machine(user=user, host=host)


@pytest.mark.parametrize("make", [lambda: machine_of(user="root"), lambda: machine_of(host="vm")])
def test_names_that_tell_nothing_stop_no_push(make: Callable[[], Machine]) -> None:
    text = "the root of a tree on a vm"
    assert find_private([PushedFile("README.md", Path("x"), text.encode())], "team/model", make()) == []
