"""`builtin:stories-and-exercises`: what a model reads before it learns to answer `builtin:instructions`.

Stories and sheets in turn. A sheet holds eight instructions of the twelve tasks with their answers as plain text, a
blank line between them: the words, the phrasings and that something is to be answered, but no template. They are drawn
from the training part only, with a seed of their own, so that what is held out there is held out here.
"""

from collections.abc import Iterator

from hfgpt.data.instructions import INSTRUCTION_TASKS, write_instruction
from hfgpt.data.stories import generate_stories
from hfgpt.data.templates import Chance

__all__ = ["DEFAULT_NUM_STORIES_AND_EXERCISES", "generate_stories_and_exercises"]

DEFAULT_NUM_STORIES_AND_EXERCISES = 5000
EXERCISES_ON_A_SHEET = 8

# Added to the seed, so that the instructions are not those of `builtin:instructions`.
SEED_OF_SHEETS = 1_000_003


def generate_stories_and_exercises(
    seed: int = 0, num_documents: int = DEFAULT_NUM_STORIES_AND_EXERCISES, *, first: int = 0
) -> Iterator[str]:
    """Yield a story, a sheet, a story, ...; document i depends on `seed` and i only.

    Args:
        seed: another seed gives other documents of the same kind.
        num_documents: how many; the default 5,000 are 4 MB of UTF-8, more than a third of it on sheets.
        first: the number of the first of them.
    """
    for index in range(first, first + num_documents):
        if index % 2 == 0:
            yield from generate_stories(seed, 1, first=index // 2)
        else:
            yield _sheet(seed, index // 2)


def _sheet(seed: int, index: int) -> str:
    """A sheet of instructions, on which none stands twice."""
    seen: set[str] = set()
    exercises = []
    for number in range(index * EXERCISES_ON_A_SHEET, (index + 1) * EXERCISES_ON_A_SHEET):
        task = INSTRUCTION_TASKS[number % len(INSTRUCTION_TASKS)]
        written = write_instruction(task, "train", Chance(seed + SEED_OF_SHEETS, number), seen)
        exercises.append("\n".join(part for part in written if part))
    return "\n\n".join(exercises)
