"""Private things are found wherever they stand, and said without being repeated."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image, PngImagePlugin
from safetensors.torch import load_file, save_file

from hfgpt.errors import UserError
from hfgpt.hub.allow_list import PushedFile, files_to_push
from hfgpt.hub.facts_file import CARD_FACTS
from hfgpt.hub.places import Machine
from hfgpt.hub.secrets import Finding, find_private, refuse_private

MACHINE = Machine(
    home="/data/people/ada1815",
    user="ada1815",
    host="engine7.analytical.org",
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
    "private key": "-----BEGIN RSA PRIVATE " + "KEY-----",
    "JSON Web Token": "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0In0." + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "Stripe Access Key": "sk_live_" + LETTERS[:24],
    "address with a password": "https://ada:" + "lovelace1" + "@example.org/data",
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
@pytest.mark.parametrize("kind", list(SECRETS))
def test_each_kind_of_secret_is_found_in_every_text_file(kind: str, name: str) -> None:
    (finding,) = found_in(name, f"one\ntwo\n  x = {SECRETS[kind]}\n")
    assert kind in finding
    assert finding.endswith(f"{name}, line 3")


HEX = "0123456789abcdef" * 4
FORMS = {
    "OpenAI": "sk-" + "proj-" + LETTERS + LETTERS,
    "OpenAI, old": "sk-" + LETTERS[:20] + "T3Blbk" + "FJ" + LETTERS[:20],
    "DeepSeek": "sk-" + HEX[:32],
    "OpenRouter": "sk-" + "or-v1-" + HEX,
    "Anthropic": "sk-" + "ant-api03-" + LETTERS + LETTERS,
    "Groq": "gsk_" + LETTERS + LETTERS[:16],
    "Google": "AIza" + LETTERS[:35],
    "Google, of an application": "GOCSPX-" + LETTERS[:28],
    "Google, short-lived": "ya29." + LETTERS,
    "Slack, of an application": "xapp-" + "1-A0123456789-" + LETTERS,
    "Slack, of a browser": "xoxc-" + "1234567890-" + LETTERS,
    "Hugging Face, of an application": "hf_" + "oauth_" + "eyJhbGciOiJFZERTQSJ9." + LETTERS,
    "Kaggle, new": "KGAT_" + HEX[:32],
    "kaggle.json": '{"username": "ada", "key": "' + HEX[:32] + '"}',
    "W&B by its variable": "WANDB_API_KEY=" + HEX[:40],
    "W&B by its command": "wandb login --relogin " + HEX[:40],
    ".netrc": "machine api.wandb.ai login user password " + HEX[:40],
    "AWS by its variable": "aws_secret_access_key = " + "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY",
    "AWS, a signed address": "https://x.s3.amazonaws.com/a?X-Amz-Signature=" + HEX,
    "Azure, a signed address": "https://x.blob.core.windows.net/a?sv=1&sig=" + LETTERS + "%3D",
    "service account": '{"private_key_id": "' + HEX[:40] + '"}',
    "encrypted key": "-----BEGIN ENCRYPTED PRIVATE " + "KEY-----",
    "OpenSSH key": "-----BEGIN OPENSSH PRIVATE " + "KEY-----",
    "PuTTY's key": "PuTTY-User-Key-" + "File-3: ssh-ed25519",
    "proxy": "http_proxy=http://ada:p+w$!" + "@proxy.example.org:3128",
    "token as an account": "https://" + LETTERS + "@git.example.org/x",
    "token without an account": "https://:" + LETTERS + "@git.example.org/x",
    "password in a command": "hfgpt pretrain --password=Tr0ub4dor&3 --config demo",
    "password among others": '{"password": null, "db_password": "Tr0ub4dor&3", "size": max(3)}',
    "docker's": '{"auth": "' + LETTERS[-24:] + '=="}',
    "basic authorization": "Authorization: Basic " + "YWRhOmxvdmVsYWNl",
    "an option": "--wandb_key " + HEX[:40],
    "a password as an option": "--password hunter22",
    "keys in a list": '{"api_keys": ["' + HEX[:32] + '"]}',
    "authorization by a token": "Authorization: Token " + HEX[:40],
    "Docker's hub": "dckr_" + "pat_" + LETTERS[:27],
    "Discord's door": "https://discord.com/api/webhooks/" + "123456789012345678/" + LETTERS,
    "address of a machine": "http://192.168.17.4:8000",
}


def plant(folder: Path, text: str) -> set[str]:
    """Write a text into every file of a run that is pushed; returns their names."""
    final = folder / "final"
    (final / "README.md").write_text(f"---\nlicense: mit\n---\nA model.\n\n{text}\n")
    (final / "run_config.yaml").write_text(yaml.safe_dump({"source": text}))
    for path in (folder / "config.yaml", folder / "loss_curve.png"):
        path.unlink()
    (folder / "metrics.jsonl").write_text('{"step": 1}\n' + json.dumps({"step": 2, "note": text}) + "\n")
    (folder / "results.json").write_text(json.dumps([text]))
    (final / "card_facts.json").write_text(json.dumps({"launch": text}, indent=2))
    (final / "chat_template.jinja").write_text("{{ bos_token }}{# " + text + " #}")
    (final / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": [text]}))
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        fields = json.loads((final / name).read_text())
        (final / name).write_text(json.dumps({**fields, "note": text}))
    tokenizer = json.loads((final / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["added_tokens"].append({"content": text, "id": 9999})
    (final / "tokenizer.json").write_text(json.dumps(tokenizer))
    (final / "pooling_hfgpt.py").write_text(f"# {text}\n")
    return {
        "README.md", "run_config.yaml", "metrics.jsonl", "results.json", "card_facts.json", "chat_template.jinja",
        "special_tokens_map.json", "config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json",
        "pooling_hfgpt.py",
    }  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_keys_are_found_in_every_file_of_a_run(run_folder: Path, form: str) -> None:
    planted = plant(run_folder, FORMS[form])
    found = find_private(files_to_push(run_folder).files, "team/model", MACHINE)
    assert {finding.path for finding in found} == planted


@pytest.mark.parametrize(
    "text",
    [
        "weights model-00001-of-00002.safetensors, sha256 " + HEX,
        '"key": "openai-community/gpt2"',
        '"self.key": "model-00001-of-00002.safetensors"',
        "commit=" + HEX[:40],
        '"bos_token": "<|endoftext|>", "eos_token_id": 50256',
        "Password: what is yours? The secret: a story of 3 children. Key: see below.",
        "https://example.org/a@b and mailto:ada@example.org",
        "git@github.com is an address, torch 2.13.0.1, 127.0.0.1:8000, 0.0.0.0",
        "num_tokens=12345678901234567890",
    ],
)
def test_hashes_names_and_sentences_are_no_keys(run_folder: Path, text: str) -> None:
    plant(run_folder, text)
    assert find_private(files_to_push(run_folder).files, "team/model", MACHINE) == []


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
        "/gpfs/ada/x",
        "/lustre/work/ada",
        "/mnt/c/Users/ada",
        "/data2/ada",
        "/root/letters.txt",
        "/nfs/home/ada",
        "cc -I/home/ada",
        "-L/scratch/ada",
        "PATH=/bin:/home/ada/bin",
        "file://engine/srv/ada",
        "file:///home/ada%20b",
        "?path=%2Fhome%2Fada",
        "~ada/letters",
        "../../home/ada/x",
        "![loss](</home/ada/x.png>)",
        "_/home/ada/x_",
        "&#47;home&#47;ada",
        "sftp://gpu3/letters",
        "/var/ada/x",
        "D:/people/ada",
        r"D:\people\ada",
        r"'\\server\letters'",
        r'"\\\\server\\letters"',
        "ada@gpu3:/letters",
        r'"{{ \'\\n/scratch/ada\' }}"',
    ],
)
def test_folders_of_this_machine_and_of_others_are_found(text: str) -> None:
    assert "a home folder or an absolute path of a machine in README.md, line 1" in found_in("README.md", text)


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
        "/help me, or /exit",
        "w/ data, 3/4 of it, 2026/11/26, 11/26/26",
        "https://example.org:8000/mnt/x and https://example.org/~ada/x",
        "s3://bucket/home/ada",
        "a: /x and A:/B",
        r"\\alpha\\beta",
        r'"[\\r\\n]+|\\s+(?!\\S)"',
        "~5/10 of them",
        "data/ and home/",
    ],
)
def test_urls_relative_paths_and_folders_of_every_machine_are_not(text: str) -> None:
    assert found_in("README.md", text) == []


def test_names_of_account_and_machine_are_found_as_whole_words() -> None:
    assert found_in("README.md", "trained by ada1815 on engine7") == [
        "the name of this account in README.md, line 1",
        "the name of this machine in README.md, line 1",
    ]
    assert found_in("README.md", "runs of_ada1815_too") == ["the name of this account in README.md, line 1"]
    assert found_in("README.md", "on engine7.analytical.org") == ["the name of this machine in README.md, line 1"]
    assert found_in("README.md", "engine70 and ada18150") == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("write to church@example.org", "in an address"),
        ("ssh ada@church", "in an address"),
        ("http://church:8000/v1", "in an address"),
        ("church.local", "in an address"),
        ('{"user": "church"}', "in a field"),
        ("hostname=church", "in a field"),
        ("runs/church/final", "in a path"),
        ("/usr/local/church", "in a path"),
        ("~church", "in a path"),
    ],
)
def test_a_name_that_is_a_word_counts_where_one_stands_for_an_account_or_a_machine(text: str, place: str) -> None:
    assert find_private([PushedFile("a.md", Path("x"), text.encode())], "team/model", Machine(user="Church")) == [
        Finding("a.md", f"the name of this account {place}", 1, made_of="x")
    ]


def test_a_name_that_is_a_word_stops_no_push_of_a_card_that_has_the_word(request: pytest.FixtureRequest) -> None:
    folder = request.config.rootpath / "model_cards"
    paths = [*folder.glob("*/README.md"), *folder.glob("facts/*.json")]
    assert len(paths) == 6
    for path in paths:
        text = path.read_text(encoding="utf-8")
        words = set(re.findall(r"[a-z]{3,}", text.lower()))
        assert len(words) > 300
        for word in words:
            machine = Machine(user=word, host=f"{word}.example.org")
            assert list(machine.named_in(text, ["team/model"])) == [], word


def test_the_cards_and_facts_of_the_demo_hold_nothing_private(request: pytest.FixtureRequest) -> None:
    folder = request.config.rootpath / "model_cards"
    for path in [*folder.glob("*/README.md"), *folder.glob("*/*.png"), *folder.glob("facts/*.json")]:
        assert find_private([PushedFile(path.name, path)], "team/model", MACHINE) == []


def test_the_name_that_the_model_is_pushed_under_is_public() -> None:
    assert found_in("README.md", "load ada1815/model", repo_id="ada1815/model") == []
    assert found_in("README.md", "load team/engine7", repo_id="team/engine7") == []


@pytest.mark.parametrize("account", ["ada", "ada1815"])
def test_the_names_of_what_a_model_was_made_from_are_public(account: str) -> None:
    base, letters = f"{account}/base", f"{account}/letters"
    facts = {
        "format_version": 1,
        "lineage": {"parent": {"repository": None, "facts": {"lineage": {"parent": {"repository": {"id": base}}}}}},
        "data": [{"repository": {"id": letters}}],
    }
    card = f"[{base}](https://huggingface.co/{base})\n[{letters}](https://huggingface.co/datasets/{letters})\n"
    machine = Machine(home=f"/home/{account}", user=account, host="engine7")

    def found(text: str, facts: object) -> list[str]:
        texts = {CARD_FACTS: json.dumps(facts), "README.md": text}
        files = [PushedFile(name, Path(name), content.encode()) for name, content in texts.items()]
        return [finding.what for finding in find_private(files, "team/model", machine)]

    assert found(card, facts) == []
    assert found(f"/home/{account}/base on engine7\n", facts) == [
        "a home folder or an absolute path of a machine",
        "the name of this machine",
    ]
    assert {what[:24] for what in found(card, {"format_version": 1})} == {"the name of this account"}


def test_pieces_of_words_and_code_may_contain_the_names() -> None:
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "modeling_hfgpt.py"):
        assert found_in(name, '"engine7": 5,') == []


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


def test_what_follows_a_picture_s_end_is_not_sent(run_folder: Path) -> None:
    with (run_folder / "loss_curve.png").open("ab") as picture:
        picture.write(b"hidden")
    with pytest.raises(UserError, match=r"something after the end of the picture in loss_curve\.png"):
        refuse_private(files_to_push(run_folder).files, "team/model", MACHINE)


@pytest.mark.parametrize("kind", ["Exif", "XMP", "own chunk", "UTF-16"])
def test_every_part_of_a_picture_that_is_no_pixels_is_searched(run_folder: Path, kind: str) -> None:
    text, picture, path = "/home/ada/letters", Image.new("RGB", (8, 8)), run_folder / "loss_curve.png"
    parts = PngImagePlugin.PngInfo()
    if kind == "Exif":
        exif = picture.getexif()
        exif[0x8769] = {0x9286: text.encode()}  # a comment in a folder of its own
        picture.save(path, exif=exif)
    else:
        content = text.encode("utf-16-le" if kind == "UTF-16" else "utf-8")
        if kind == "XMP":
            parts.add_itxt("XML:com.adobe.xmp", text, zip=True)
        else:
            parts.add(b"prVt", content)
        picture.save(path, pnginfo=parts)
    (finding,) = find_private(files_to_push(run_folder).files, "team/model", MACHINE)
    assert str(finding) == "a home folder or an absolute path of a machine (its comments) in loss_curve.png"


def test_what_stands_behind_the_weights_is_not_sent(model_folder: Path) -> None:
    with (model_folder / "model.safetensors").open("ab") as weights:
        weights.write(b"hidden")
    with pytest.raises(UserError, match="is not a whole safetensors file"):
        refuse_private(files_to_push(model_folder).files, "team/model", MACHINE)


def test_the_sentence_names_files_and_lines_and_no_secret(model_folder: Path) -> None:
    (model_folder / "README.md").write_text("\n".join(["a", *SECRETS.values()]))
    with pytest.raises(UserError) as stopped:
        refuse_private(files_to_push(model_folder).files, "team/model", MACHINE)
    sentence = str(stopped.value)
    assert "a Hugging Face token in README.md, line 2" in sentence
    assert "and 7 more" in sentence
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
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/+bPxRfiCYEXAMPLE",
        "SERVICE_APIKEYS": "one-of-two-keys\ntwo-of-two-keys",
        "GOOGLE_KEY": str(tmp_path),
        "MODEL_KEY": "openai-community/gpt2",
    }.items():
        monkeypatch.setenv(name, value)
    secrets = Machine.here().secrets
    assert {
        "0123456789abcdef0123", "hf_whatever_it_is", "wJalrXUtnFEMI/K7MDENG/+bPxRfiCYEXAMPLE", "one-of-two-keys",
        "two-of-two-keys",
    } <= set(secrets)  # fmt: skip
    assert not {"a-long-name-of-a-tokenizer", "short", str(tmp_path), "openai-community/gpt2"} & set(secrets)
    assert "hf_whatever" not in repr(Machine.here())


def test_secrets_in_use_are_those_too_that_programs_keep_in_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    aws = "wJalrXUtnFEMI/K7MDENG/" + "+bPxRfiCYEXAMPLE0="
    for name, text in {
        ".netrc": f"machine api.wandb.ai\n  login user\n  password {HEX[:40]}\n",
        ".git-credentials": f"https://ada:{LETTERS}@git.example.org\n",
        ".aws/credentials": f"[default]\naws_access_key_id = short\naws_secret_access_key={aws}\n",
        ".kaggle/kaggle.json": json.dumps({"username": "ada", "key": HEX[:32]}),
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert {HEX[:40], LETTERS, aws, HEX[:32]} <= set(Machine.here().secrets)
    assert not {"short", "default", "user", "ada"} & set(Machine.here().secrets)


def machine_of(user: str = "", host: str = "") -> Machine:
    return Machine(user=user, host=host)


@pytest.mark.parametrize(
    "make",
    [lambda: machine_of(user="root"), lambda: machine_of(host="vm"), lambda: machine_of(host="h100.example.org")],
)
def test_names_that_tell_nothing_stop_no_push(make: Callable[[], Machine]) -> None:
    text = "the root of a tree on a vm, 1 x NVIDIA H100 80GB HBM3"
    assert find_private([PushedFile("README.md", Path("x"), text.encode())], "team/model", make()) == []
