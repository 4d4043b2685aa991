"""Stand-in for a file that transformers' source distribution leaves out: values for fields of every configuration."""

# Each differs from the default, so that a field that is dropped shows.
config_common_kwargs = {
    "architectures": ["HfGptForCausalLM"],
    "chunk_size_feed_forward": 7,
    "dtype": "float16",
    "id2label": {0: "only"},
    "label2id": {"only": 0},
    "output_attentions": True,
    "output_hidden_states": True,
    "problem_type": "multi_label_classification",
    "return_dict": False,
}
