"""transformers' own tests of its models, run on this one: the whole of its common mixins, for two shapes."""

import unittest
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers.models.auto import modeling_auto
from transformers_tests import test_fsdp_mixin, test_tensor_parallel_mixin
from transformers_tests.generation.test_utils import GenerationTesterMixin
from transformers_tests.test_configuration_common import ConfigTester
from transformers_tests.test_fsdp_mixin import FSDPTesterMixin
from transformers_tests.test_modeling_common import ModelTesterMixin, ids_tensor
from transformers_tests.test_tensor_parallel_mixin import TensorParallelTesterMixin
from transformers_tests.test_training_mixin import TrainingTesterMixin

from hfgpt import HfGptConfig, HfGptForCausalLM, HfGptForSequenceClassification, HfGptModel

# The mixins look up by a class's name which labels its head takes, and by the model's type whether it is worth several
# processes.
modeling_auto.MODEL_MAPPING_NAMES["hfgpt"] = "HfGptModel"
modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["hfgpt"] = "HfGptForCausalLM"
modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES["hfgpt"] = "HfGptForSequenceClassification"
test_tensor_parallel_mixin.TP_DISTRIBUTED_TEST_MODEL_TYPES.add("hfgpt")
test_fsdp_mixin.FSDP_DISTRIBUTED_TEST_MODEL_TYPES.add("hfgpt")

WITHOUT_DROPOUT = {"embedding_dropout": 0.0, "attention_dropout": 0.0, "residual_dropout": 0.0}


class ModelTester:
    """What transformers' mixins ask of a model's tester: a small configuration, and inputs for it."""

    config_class = HfGptConfig
    base_model_class = HfGptModel
    causal_lm_class = HfGptForCausalLM
    sequence_classification_class = HfGptForSequenceClassification

    batch_size = 13
    seq_length = 7
    hidden_size = 32
    num_hidden_layers = 2
    num_attention_heads = 4
    is_training = True

    def __init__(self, **changes: Any) -> None:
        self.changes = changes

    def get_config(self) -> HfGptConfig:
        return HfGptConfig(
            vocab_size=99,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=37,
            max_position_embeddings=512,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
            **self.changes,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[HfGptConfig, dict[str, Tensor]]:
        config = self.get_config()
        input_ids = ids_tensor([self.batch_size, self.seq_length], config.vocab_size)
        return config, {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids).tril()}


class CommonTests(
    ModelTesterMixin, GenerationTesterMixin, TrainingTesterMixin, TensorParallelTesterMixin, FSDPTesterMixin
):
    """Everything that transformers tests of any model, for the shape that a subclass names."""

    shape: ClassVar[dict[str, Any]] = {}
    all_model_classes = (HfGptModel, HfGptForCausalLM, HfGptForSequenceClassification)
    test_can_init_all_missing_weights_before_2023 = True  # the year is looked for in a copyright line
    model_tester = None  # abstract in the mixins

    def setUp(self) -> None:
        self.model_tester = ModelTester(**self.shape)

    def _get_tp_config(self, tie_word_embeddings: bool | None = None) -> HfGptConfig:
        # In training mode, sharded and whole models are compared: processes draw different dropout.
        config = super()._get_tp_config(tie_word_embeddings)
        for name, value in WITHOUT_DROPOUT.items():
            setattr(config, name, value)
        return config

    def _get_tiny_config(self) -> tuple[type, dict[str, Any]]:
        config_class, fields = super()._get_tiny_config()
        return config_class, fields | WITHOUT_DROPOUT  # as for tensor parallelism


class TestGpt2Shape(CommonTests, unittest.TestCase):
    """The default architecture: learned positions, LayerNorm, GELU, biases, a tied head; with dropout."""

    def test_config(self) -> None:
        ConfigTester(self, config_class=HfGptConfig, hidden_size=36, vocab_size=99).run_common_tests()


class TestLlamaShape(CommonTests, unittest.TestCase):
    """Rotary positions, RMSNorm, SwiGLU, grouped queries, a sliding window; no bias, no dropout, an untied head."""

    shape: ClassVar[dict[str, Any]] = {
        "position_embedding_type": "rotary",
        "norm_type": "rms_norm",
        "hidden_act": "swiglu",
        "num_key_value_heads": 2,
        "sliding_window": 5,
        "use_bias": False,
        "tie_word_embeddings": False,
        **WITHOUT_DROPOUT,
    }
