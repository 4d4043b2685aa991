"""hfgpt: the GPT of *Build a Large Language Model (From Scratch)*, at home in the Hugging Face ecosystem.

`import hfgpt` makes `AutoConfig`, `AutoModel`, `AutoModelForCausalLM` and `AutoModelForSequenceClassification` know the
model. It is as light as these classes are: the modelling code is read when a model is first asked for.
"""

import importlib
import importlib.metadata
import sys
from typing import TYPE_CHECKING, Any

from transformers import AutoConfig
from transformers.models.auto import modeling_auto

from .configuration_hfgpt import HfGptConfig

if TYPE_CHECKING:
    from .modeling_hfgpt import HfGptForCausalLM, HfGptForSequenceClassification, HfGptModel, HfGptPreTrainedModel

__version__ = importlib.metadata.version("hfgpt")

__all__ = [
    "HfGptConfig",
    "HfGptForCausalLM",
    "HfGptForSequenceClassification",
    "HfGptModel",
    "HfGptPreTrainedModel",
    "__version__",
]

_AUTO_CLASSES = {
    "MODEL_MAPPING": "HfGptModel",
    "MODEL_FOR_CAUSAL_LM_MAPPING": "HfGptForCausalLM",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING": "HfGptForSequenceClassification",
}


def __getattr__(name: str) -> Any:
    """The model classes, imported at their first use (PEP 562)."""
    if name in __all__:
        return getattr(importlib.import_module(".modeling_hfgpt", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _push_model(model: "HfGptPreTrainedModel", repo_id: str, **options: Any) -> str:
    """What `push_to_hub` of a model does where the whole package is at hand, not only the files that travel."""
    pushed: str = importlib.import_module(".hub.model_push", __name__).push_model(model, repo_id, **options)
    return pushed


def _register_auto_classes() -> None:
    """Register by name, as transformers registers its own models.

    `AutoModel.register` would need the class, and with it the import of modelling code and accelerate: twice the time.
    transformers' mappings resolve a name on a module at its first use, and here that module is this package.
    """
    AutoConfig.register(HfGptConfig.model_type, HfGptConfig, exist_ok=True)
    for mapping_name, class_name in _AUTO_CLASSES.items():
        mapping = getattr(modeling_auto, mapping_name)
        mapping._config_mapping[HfGptConfig.model_type] = HfGptConfig.__name__
        mapping._reverse_config_mapping[HfGptConfig.__name__] = HfGptConfig.model_type
        mapping._model_mapping[HfGptConfig.model_type] = class_name
        mapping._modules[HfGptConfig.model_type] = sys.modules[__name__]


_register_auto_classes()
