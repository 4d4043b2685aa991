"""What the tests of the data room share: a cache of their own and a tokenizer of one token a byte."""

import datasets
import pytest


@pytest.fixture(scope="session", autouse=True)
def own_datasets_cache(tmp_path_factory: pytest.TempPathFactory):
    """Keep what the tests prepare out of the user's cache, and the user's cache out of the tests."""
    patch = pytest.MonkeyPatch()
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets_cache"))
    yield
    patch.undo()
