"""Using a trained model: loading it from anywhere, continuing a prompt.

First floor of the house, in the model's wing: it knows models and tokenizers, but no training and no data.
"""
