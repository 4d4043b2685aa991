"""The trainings as tasks: where model, data and engine meet.

Third floor of the house. One module a recipe (`pretrain`), each with a typed configuration and a `main` that the thin
scripts under the repository's `recipes/` and the `hfgpt` command call.
"""
