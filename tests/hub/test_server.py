"""The Hub on loopback by itself: in a process of its own, over a folder, with look-alikes."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from transformers import AutoTokenizer, GPT2LMHeadModel
from transformers.utils import hub as transformers_hub

from hfgpt import HfGptForCausalLM

from .look_alikes import MODELS, gpt2, gpt2_tokenizer
from .server import LoopbackHub

ROOT = Path(__file__).parents[2]


def test_a_process_serves_a_folder_until_it_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "tester" / "old").mkdir(parents=True)
    (tmp_path / "models" / "tester" / "old" / "config.json").write_text("{}")
    command = [sys.executable, "-m", "tests.hub", "--root", str(tmp_path)]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    said = server.stdout.readline()
    variables = dict(re.findall(r"(\w+)=(\S+)", said))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    try:
        api = HfApi(endpoint=variables["HF_ENDPOINT"], token=variables["HF_TOKEN"])
        assert api.list_repo_files("tester/old") == [".gitattributes", "config.json"]
        api.create_repo("tester/new", repo_type="dataset")
        api.upload_file(path_or_fileobj=b"a,b\n", path_in_repo="x/y.csv", repo_id="tester/new", repo_type="dataset")
    finally:
        server.send_signal(signal.SIGINT)
    assert server.wait(timeout=30) == 0
    assert (tmp_path / "datasets" / "tester" / "new" / "x" / "y.csv").read_bytes() == b"a,b\n"
    with LoopbackHub(tmp_path) as again:
        assert again.repo("tester/new", "dataset")["x/y.csv"] == b"a,b\n"


def test_two_hubs_know_nothing_of_each_other() -> None:
    with LoopbackHub() as one, LoopbackHub() as other:
        one.add_repo("team/model", {"config.json": b"{}"})
        assert one.endpoint != other.endpoint
        assert one.token != other.token
        assert (("team/model", "model") in other.settings.store.repositories) is False


@pytest.fixture
def client_of_another_hub(monkeypatch: pytest.MonkeyPatch) -> HfApi:
    """The client that transformers keeps from its first call on, as a test before has left it."""
    client = HfApi(endpoint="http://127.0.0.1:9")
    monkeypatch.setattr(transformers_hub, "_hf_api", client)
    return client


@pytest.mark.skipif(not hasattr(transformers_hub, "_hf_api"), reason="earlier releases keep no client")
def test_transformers_speaks_to_this_hub_whatever_it_spoke_to_before(
    client_of_another_hub: HfApi, hub: LoopbackHub
) -> None:
    assert transformers_hub.hf_api().endpoint == hub.endpoint != client_of_another_hub.endpoint


def test_the_look_alike_of_gpt2_is_laid_out_as_gpt2_is(hub: LoopbackHub, gpt2_files: Path | None) -> None:
    tokenizer = gpt2_tokenizer(gpt2_files)
    hub.add_repo("openai-community/gpt2", gpt2(tokenizer, **MODELS["openai-community/gpt2"]))
    theirs = GPT2LMHeadModel.from_pretrained("openai-community/gpt2").eval()
    ours, report = HfGptForCausalLM.from_pretrained("openai-community/gpt2", output_loading_info=True)
    assert not any(report.values()), report
    token_ids = torch.arange(9)[None]
    with torch.no_grad():
        assert torch.allclose(ours.eval()(token_ids).logits, theirs(token_ids).logits, atol=1e-4)
    loaded = AutoTokenizer.from_pretrained("openai-community/gpt2")
    assert loaded.model_max_length == 1024
    assert loaded.decode(loaded("Every effort moves you").input_ids) == "Every effort moves you"
    if gpt2_files is not None:
        assert loaded("Every effort moves you").input_ids == [6109, 3626, 6100, 345]  # as the book's section 4.7 has it
