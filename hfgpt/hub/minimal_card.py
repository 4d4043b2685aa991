"""The card of a model of which nothing is known but its configuration."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

__all__ = ["minimal_card"]

_TEXT = """---
{front_matter}
---

# {name}

{what}, in the shape of GPT-2, written with hfgpt.

How it was trained, on what and how well it does was not recorded with it.

## How to use it

```python
from transformers import pipeline

model = pipeline("{task}", model="{repo_id}"{trust})
```
"""

_HEADS = {
    "ForCausalLM": ("text-generation", "A language model that continues text"),
    "LMHeadModel": ("text-generation", "A language model that continues text"),
    "ForSequenceClassification": ("text-classification", "A classifier of texts"),
}


def minimal_card(config: Mapping[str, Any], repo_id: str) -> ModelCard:
    """What can be said honestly: what kind of model it is, and how to open it.

    Args:
        config: What the model's `config.json` holds.
    """
    architecture = (config.get("architectures") or [""])[0]
    task, what = next(
        (found for ending, found in _HEADS.items() if architecture.endswith(ending)),
        ("feature-extraction", "A model that turns text into vectors"),
    )
    data = ModelCardData(library_name="transformers", pipeline_tag=task, tags=["hfgpt", "gpt"])
    text = _TEXT.format(
        front_matter=data.to_yaml(),
        name=repo_id.rpartition("/")[2],
        what=what,
        task=task,
        repo_id=repo_id,
        trust=", trust_remote_code=True" if config.get("auto_map") else "",
    )
    return ModelCard(text)
