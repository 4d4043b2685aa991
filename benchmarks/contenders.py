"""The models that the training-step benchmark compares: one GPT-2, as four libraries write it.

Each is a module that takes (ids, targets), both `(batch, tokens)`, and gives the mean cross-entropy of its plain
logits. All have a tied head, q/k/v biases and no dropout, and each can take over the weights of transformers' GPT-2.
"""

import contextlib
import importlib
import importlib.util
import sys
import tempfile
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
import typer
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from hfgpt import HfGptConfig, HfGptForCausalLM

__all__ = ["BUILD", "SIZES", "TAKE_WEIGHTS", "Size"]


@dataclass(frozen=True)
class Size:
    """The shape of a GPT-2, and the batch (sequences, tokens) for CPU and for accelerators."""

    layers: int
    hidden: int
    heads: int
    vocabulary: int = 50257
    cpu_batch: tuple[int, int] = (4, 256)
    accelerator_batch: tuple[int, int] = (16, 1024)

    def flops_per_token(self, tokens: int) -> int:
        """Multiplications and additions of forward and backward per token: 6 N + 12 L T d (PaLM, appendix B).

        N are the weights that a token is multiplied with: 12 d^2 a layer, and the head; embeddings are looked up. The
        second term is attention, T x T scores a layer, counted whole although the causal mask makes half of it idle.
        """
        matrix_weights = 12 * self.layers * self.hidden**2 + self.vocabulary * self.hidden
        return 6 * matrix_weights + 12 * self.layers * tokens * self.hidden


SIZES = {
    "tiny": Size(layers=2, hidden=32, heads=2, vocabulary=512, cpu_batch=(2, 16), accelerator_batch=(2, 16)),
    "30m": Size(layers=6, hidden=384, heads=6),
    "124m": Size(layers=12, hidden=768, heads=12, cpu_batch=(2, 256)),
}


class LossOfLogits(nn.Module):
    """Cross-entropy on the logits of a model that knows no targets."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        logits = self.logits(ids)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    def logits(self, ids: Tensor) -> Tensor:
        return self.model(ids)


class LossOfTransformersModel(LossOfLogits):
    """The same for models with transformers' interface."""

    def logits(self, ids: Tensor) -> Tensor:
        return self.model(input_ids=ids, use_cache=False).logits


class LossOfNanoGPT(nn.Module):
    """nanoGPT computes the same loss itself when given targets, and only the last logits when not."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        return self.model(ids, targets)[1]


def build_hfgpt(
    size: Size, tokens: int, config_class: Callable[..., HfGptConfig] = HfGptConfig, model_class: Any = HfGptForCausalLM
) -> nn.Module:
    """Ours."""
    config = config_class(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=tokens,
        embedding_dropout=0.0,
        attention_dropout=0.0,
        residual_dropout=0.0,
        attn_implementation="sdpa",
    )
    return LossOfTransformersModel(model_class(config))


def build_former(size: Size, tokens: int, checkout: Path) -> nn.Module:
    """The model of another checkout of hfgpt, such as `git worktree add ../former COMMIT`."""
    package = types.ModuleType("former_hfgpt")  # its model's files import nothing but each other
    package.__path__ = [str(checkout / "hfgpt")]
    sys.modules[package.__name__] = package
    if not (checkout / "hfgpt" / "modeling_hfgpt.py").is_file():
        raise typer.BadParameter(f"there is no {checkout / 'hfgpt' / 'modeling_hfgpt.py'}: name a checkout of hfgpt")
    classes = importlib.import_module("former_hfgpt.modeling_hfgpt")
    return build_hfgpt(size, tokens, classes.HfGptConfig, classes.HfGptForCausalLM)


def build_transformers(size: Size, tokens: int) -> nn.Module:
    """transformers' GPT-2."""
    config = GPT2Config(
        vocab_size=size.vocabulary,
        n_embd=size.hidden,
        n_layer=size.layers,
        n_head=size.heads,
        n_positions=tokens,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="sdpa",
    )
    return LossOfTransformersModel(GPT2LMHeadModel(config))


def build_book(size: Size, tokens: int) -> nn.Module:
    """The book's `GPTModel` of chapter 4, its head tied as in GPT-2 so that it trains as many weights as the others."""
    from llms_from_scratch.ch04 import GPTModel  # optional: pip install --no-deps llms-from-scratch

    names = ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers", "drop_rate", "qkv_bias")
    values = (size.vocabulary, tokens, size.hidden, size.heads, size.layers, 0.0, True)
    model = GPTModel(dict(zip(names, values, strict=True)))
    model.out_head.weight = model.tok_emb.weight
    return LossOfLogits(model)


def build_nanogpt(size: Size, tokens: int, checkout: Path) -> nn.Module:
    """`GPT` of the file model.py in a checkout of nanoGPT; it computes GELU exactly, the others by the tanh formula."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", checkout / "model.py")
    if spec is None or spec.loader is None or not (checkout / "model.py").is_file():
        raise typer.BadParameter(f"there is no {checkout / 'model.py'}: name a checkout of nanoGPT")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    with contextlib.redirect_stdout(None):  # it prints its number of parameters
        spec.loader.exec_module(module)
        config = module.GPTConfig(
            block_size=tokens,
            vocab_size=size.vocabulary,
            n_layer=size.layers,
            n_head=size.heads,
            n_embd=size.hidden,
            dropout=0.0,
            bias=True,
        )
        return LossOfNanoGPT(module.GPT(config))


def load_all(model: nn.Module, weights: dict[str, Tensor], but: str) -> None:
    """Loads `weights` into `model`, which must have exactly these, causal masks (names that end in `but`) aside."""
    result = model.load_state_dict(weights, strict=False)
    missing = [name for name in result.missing_keys if not name.endswith(but)]
    if missing or result.unexpected_keys:
        raise RuntimeError(f"{type(model).__name__} is not the model it was: {missing=}, {result.unexpected_keys=}")


# How each takes over the weights of transformers' GPT-2. There, Conv1D stores a linear layer's weight transposed.


def take_weights_hfgpt(ours: nn.Module, gpt2: GPT2LMHeadModel) -> None:
    """Through a saved folder in GPT-2's layout, as users load them."""
    with tempfile.TemporaryDirectory() as folder:
        gpt2.save_pretrained(folder)
        loaded = HfGptForCausalLM.from_pretrained(folder, config=HfGptConfig.from_pretrained(folder))
    ours.model.load_state_dict(loaded.state_dict())


def take_weights_transformers(theirs: nn.Module, gpt2: GPT2LMHeadModel) -> None:
    """As they are."""
    theirs.model.load_state_dict(gpt2.state_dict())


def take_weights_nanogpt(theirs: nn.Module, gpt2: GPT2LMHeadModel) -> None:
    """The same names, the weights of linear layers transposed."""
    transposed = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    weights = {name: w.T if name.endswith(transposed) else w for name, w in gpt2.state_dict().items()}
    load_all(theirs.model, weights, but=".attn.bias")


def take_weights_book(theirs: nn.Module, gpt2: GPT2LMHeadModel) -> None:
    """Other names, transposed, and query, key and value apart."""
    weights = {
        "tok_emb.weight": gpt2.transformer.wte.weight,
        "pos_emb.weight": gpt2.transformer.wpe.weight,
        "out_head.weight": gpt2.lm_head.weight,
        "final_norm.scale": gpt2.transformer.ln_f.weight,
        "final_norm.shift": gpt2.transformer.ln_f.bias,
    }
    for i, block in enumerate(gpt2.transformer.h):
        linear = {"att.out_proj": block.attn.c_proj, "ff.layers.0": block.mlp.c_fc, "ff.layers.2": block.mlp.c_proj}
        for name, layer in linear.items():
            weights |= {f"trf_blocks.{i}.{name}.weight": layer.weight.T, f"trf_blocks.{i}.{name}.bias": layer.bias}
        for name, norm in {"norm1": block.ln_1, "norm2": block.ln_2}.items():
            weights |= {f"trf_blocks.{i}.{name}.scale": norm.weight, f"trf_blocks.{i}.{name}.shift": norm.bias}
        parts = zip(block.attn.c_attn.weight.T.chunk(3), block.attn.c_attn.bias.chunk(3), strict=True)
        for name, (weight, bias) in zip(("W_query", "W_key", "W_value"), parts, strict=True):
            weights |= {f"trf_blocks.{i}.att.{name}.weight": weight, f"trf_blocks.{i}.att.{name}.bias": bias}
    load_all(theirs.model, weights, but=".att.mask")


BUILD: dict[str, Callable[..., nn.Module]] = {
    "hfgpt": build_hfgpt,
    "former": build_former,
    "transformers": build_transformers,
    "book": build_book,
    "nanogpt": build_nanogpt,
}
TAKE_WEIGHTS: dict[str, Callable[[nn.Module, GPT2LMHeadModel], None]] = {
    "hfgpt": take_weights_hfgpt,
    "former": take_weights_hfgpt,
    "transformers": take_weights_transformers,
    "book": take_weights_book,
    "nanogpt": take_weights_nanogpt,
}
