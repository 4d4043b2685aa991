"""Metrics as modules of Hugging Face evaluate, thin over scikit-learn: they need no network.

Each folder is one module that `evaluate.load(FOLDER)` takes, too. Names, inputs and defaults are those of the Hub's
modules of the same names, so that either can stand for the other; `roc_auc` also takes the probabilities of more than
two classes without a further argument. A class is named as its module, in capitals: `roc_auc` holds `RocAuc`.
"""
