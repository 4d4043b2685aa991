"""`hfgpt generate`: a prompt in, continuations out."""

import json
import sys

from transformers import TextStreamer

from hfgpt.serving.defaults import DEFAULT_NEW_TOKENS
from hfgpt.serving.generation import continue_prompt
from hfgpt.serving.loading import inference_device, load_model
from hfgpt.tokenization import load_tokenizer, replace_lone_surrogates


def run(
    model_name: str,
    prompt: str,
    *,
    tokenizer_name: str | None,
    max_new_tokens: int | None,
    num_samples: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    as_json: bool,
) -> None:
    """Load the model and print its continuations: streamed as plain text, or a line of JSON each.

    Raises:
        UserError: If model or tokenizer cannot be loaded, or prompt and answer do not fit into the context.
    """
    prompt, num_replaced = replace_lone_surrogates(prompt)  # bytes that are not UTF-8 arrive as lone surrogates
    if num_replaced:
        print(f"hfgpt: {num_replaced} bytes of the prompt are not UTF-8 and were replaced.", file=sys.stderr)
    model = load_model(model_name, device_map=inference_device())
    tokenizer = load_tokenizer(tokenizer_name or model_name)
    if max_new_tokens is None:
        ids = tokenizer(prompt, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        num_tokens = max(1, len(ids))
        room = model.config.max_position_embeddings - num_tokens
        max_new_tokens = max(1, min(DEFAULT_NEW_TOKENS, room))
    streams = not as_json
    continuations = continue_prompt(
        model,
        tokenizer,
        prompt,
        max_new_tokens=max_new_tokens,
        num_samples=num_samples,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True) if streams else None,
    )
    for index in range(num_samples):
        if streams:
            print(("\n" if index else "") + prompt, end="", flush=True)
        text = next(continuations)
        if as_json:
            print(json.dumps({"prompt": prompt, "text": text, "sample": index}, ensure_ascii=False), flush=True)
