"""Finds transformers' own common tests, and lets none of them be skipped without a reason that holds.

`make test-ecosystem` fetches those tests and runs this folder; every other run of pytest leaves the folder out.
"""

import re
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
STAND_INS = HERE / "stand_ins"
sys.path.insert(0, str(HERE))
from fetch import FOLDER  # noqa: E402  # found by the line above

if not FOLDER.is_dir():
    raise pytest.UsageError(f"{FOLDER} is not there: `make test-ecosystem` fetches transformers' own tests into it.")
# As entries of sys.path, and not by an import hook, because processes that a test spawns inherit these.
sys.path[:0] = [str(FOLDER), str(STAND_INS)]
sys.path.remove(str(HERE))

collect_ignore = [STAND_INS.name]

MARKERS = """
    accelerate_tests flash_attn_test flash_attn_3_test flash_attn_4_test is_expert_parallel_test is_fsdp_test
    is_pipeline_test is_tensor_parallel_test is_training_test torch_compile_test
"""

# Why one of transformers' tests may be skipped. A reason that no line here matches fails the test.
VALID_REASONS = [
    # What this machine lacks.
    r"^test requires (Flash Attention|MPS|accelerator|deepspeed|multiple accelerators|the kernels library|torchao)",
    r"^Test requires torchao$",
    r"^Need at least \d+ FSDP workers",
    # What the model is not: a composite, an encoder-decoder, a mixture of experts, a vision model.
    r"^This model is not composite$",
    r"^Model is not a composite model\.$",
    r"^No subconfigs so the test does not make sense$",
    r"^No sequence-to-sequence language modeling head to check$",
    r"^Not an MoE model$",
    r"^This model has no sparse experts\.$",
    r"^This model has no `output_router_logits` in its config\.$",
    r"^Model does not have an? (token-dispatch )?expert parallel plan",
    r"^HfGptModel does not support grouped_mm$",  # a way to compute experts
    r"has no axial RoPE layer defined",
    # Of composite models only, although the reason does not say so: the same test for others runs.
    r"^HfGptModel does not support SDPA$",
    # What the model does not offer.
    r"^This model does not (have RoPE|support RoPE scaling)$",  # rotary positions come unscaled, without a module
    r"^Model does not have position embeddings$",  # that could be resized
    r"has no _keep_in_fp32_modules",
    r"^Model does not support sliding window mask$",  # by a second switch `use_sliding_window`, beside the width
    r"^No conversion found for ",  # what it saves needs none; GPT-2's layout is tests/test_conversion_hfgpt.py's
    # What transformers tests of the tokenizers of known models only, by their texts and classes.
    r"^No integration expected tokens provided$",
    r"^Tokenizer from TokenizersExtractor not enabled for this tokenizer$",
    r"^tokenizer doesn't accept chat templates at input$",  # by name in its signature
    # What this folder leaves out by itself.
    r"^Left out: ",
]

# Configurations as far from each other as the options allow, without dropout.
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "llama": {
        "position_embedding_type": "rotary",
        "norm_type": "rms_norm",
        "hidden_act": "swiglu",
        "num_key_value_heads": 2,
        "sliding_window": 6,  # fewer than the tests' prompts have tokens
        "use_bias": False,
        "tie_word_embeddings": False,
    },
}


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Fields of a configuration: GPT-2's architecture, and Llama's with a sliding window."""
    return SHAPES[request.param]


def pytest_configure(config: pytest.Config) -> None:
    for name in MARKERS.split():
        config.addinivalue_line("markers", f"{name}: a kind of test, as transformers names it")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not any(re.search(valid, reason) for valid in VALID_REASONS):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped for a reason that conftest.py does not list: {reason}"
    return report
