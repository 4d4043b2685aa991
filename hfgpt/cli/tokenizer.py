"""`hfgpt tokenizer train`: text in, a saved tokenizer out."""

from pathlib import Path

from hfgpt.data import load_text
from hfgpt.tokenization import TextEncoder, train_tokenizer

from .output import new_folder


def train(source: str, *, vocab_size: int, out: Path, text_column: str | None, split_digits: bool) -> None:
    """Train, save, and say how well the tokenizer compresses the text.

    Raises:
        UserError: If the source cannot be read, is too small for the vocabulary, or the folder is in use.
    """
    with new_folder(out) as folder:
        texts = load_text(source, text_column=text_column)["text"]
        tokenizer = train_tokenizer(texts, vocab_size, split_digits=split_digits)
        tokenizer.save_pretrained(folder)
    sample = list(texts[:100])
    num_bytes = sum(len(text.encode()) for text in sample)
    num_tokens = sum(len(ids) for ids in TextEncoder(tokenizer)(sample))
    print(f"{out}: {len(tokenizer):,} ids, {num_bytes / num_tokens:.2f} bytes a token on the first documents.")
