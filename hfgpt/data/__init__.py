"""Text in, batches out: the ground floor of the trainer's wing.

`load_text` is the door, `load_labelled` the one for texts with classes and `load_conversations` that for questions with
answers. What comes after them are pure functions: `split_documents`, `split_labelled`, `split_conversations`,
`encode_documents`, blocks (`TokenBlocks`, `stream_blocks`) and the order in which they are taken (`StepSampler`; for a
stream `BlockStream`).
"""

from hfgpt.data.blocks import EncodeBatch, TokenBlocks, check_token_ids, encode_documents, stream_blocks, token_chunks
from hfgpt.data.conversation_split import ConversationSplits, split_conversations
from hfgpt.data.conversations import LoadedConversations, load_conversations
from hfgpt.data.instructions import generate_instructions
from hfgpt.data.labelled import load_labelled
from hfgpt.data.labelled_split import LabelledSplits, split_labelled
from hfgpt.data.lanes import BlockStream, ExampleStream, StreamReader
from hfgpt.data.messages import generate_messages
from hfgpt.data.order import EpochOrder, StepSampler, sample_indices
from hfgpt.data.sources import load_text
from hfgpt.data.split import TextSplit, split_documents
from hfgpt.data.stories import generate_stories

__all__ = [
    "BlockStream",
    "ConversationSplits",
    "EncodeBatch",
    "EpochOrder",
    "ExampleStream",
    "LabelledSplits",
    "LoadedConversations",
    "StepSampler",
    "StreamReader",
    "TextSplit",
    "TokenBlocks",
    "check_token_ids",
    "encode_documents",
    "generate_instructions",
    "generate_messages",
    "generate_stories",
    "load_conversations",
    "load_labelled",
    "load_text",
    "sample_indices",
    "split_conversations",
    "split_documents",
    "split_labelled",
    "stream_blocks",
    "token_chunks",
]
