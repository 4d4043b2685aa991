"""Text in, batches out: the ground floor of the trainer's wing.

`load_text` is the door. What comes after it are pure functions: `split_documents`, `encode_documents`, blocks
(`TokenBlocks`, `stream_blocks`) and the order in which they are taken (`StepSampler`; for a stream `BlockStream`).
"""

from hfgpt.data.blocks import EncodeBatch, TokenBlocks, check_token_ids, encode_documents, stream_blocks, token_chunks
from hfgpt.data.lanes import BlockStream, ExampleStream, StreamReader
from hfgpt.data.order import EpochOrder, StepSampler, sample_indices
from hfgpt.data.sources import load_text
from hfgpt.data.split import TextSplit, split_documents
from hfgpt.data.stories import generate_stories

__all__ = [
    "BlockStream",
    "EncodeBatch",
    "EpochOrder",
    "ExampleStream",
    "StepSampler",
    "StreamReader",
    "TextSplit",
    "TokenBlocks",
    "check_token_ids",
    "encode_documents",
    "generate_stories",
    "load_text",
    "sample_indices",
    "split_documents",
    "stream_blocks",
    "token_chunks",
]
