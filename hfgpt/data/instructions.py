"""`builtin:instructions`: instructions with one right answer each, generated, and the same on every machine.

Twelve tasks, each asked for in several phrasings, half of them with the material in the entry's `input`:

    copy, reverse, sort          the same words in this or that order
    upper_case, plural, opposite each word replaced by one that belongs to it; plurals are partly irregular
    count, position              how many words; how often one of them; which is the third, or comes after another
    odd_one_out                  the one word of another category
    sum, calendar                two numbers up to 40; two days or months on or back
    reading                      who has what of which colour, in a text of a few sentences

What is held out are **combinations**. Each word, number, fact and phrasing occurs in training, but which of them stand
together is training's, validation's or test's alone: the words of a list, in whatever order and whatever task; the two
numbers of a sum; an owner and his thing; and with single words and dates, which are too few, the fact and its phrasing.
The combination itself says whose it is, whatever the seed: what a model has learned from another seed's training part
is still not what it is tested on.

Entry number i of a split is a function of the seed and of i by the same integer arithmetic as the stories, but that
what has been asked before is drawn anew: no instruction comes twice.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Literal

from hfgpt.data.instruction_tasks import TASKS, Combination, Exercise
from hfgpt.data.instruction_templates import PHRASINGS
from hfgpt.data.templates import Chance, fill_template
from hfgpt.errors import UserError

__all__ = ["DEFAULT_NUM_INSTRUCTIONS", "INSTRUCTION_TASKS", "generate_instructions", "write_instruction"]

INSTRUCTION_TASKS = tuple(TASKS)

DEFAULT_NUM_INSTRUCTIONS = {"train": 20_000, "validation": 500, "test": 1_000}

# Of a hundred combinations; training has the rest.
PERCENT_TEST = 12
PERCENT_VALIDATION = 6

# Numbers of a seed's chances that the splits share among them.
FIRST_NUMBER = {"train": 0, "validation": 1_000_000_000, "test": 2_000_000_000}

# So many of the training part are of all tasks in turn. `calendar` has little more to ask then; the others go on.
ALL_IN_TURN = 72_000
ENDLESS_TASKS = tuple(task for task in INSTRUCTION_TASKS if task != "calendar")

# In a row without anything new; then a task has no more to ask.
MOST_DRAWS = 20_000

Split = Literal["train", "validation", "test"]


def generate_instructions(
    split: Split = "train", seed: int = 0, num_instructions: int | None = None
) -> Iterator[dict[str, Any]]:
    """Yield entries `{"messages": [...], "task": NAME}`, the tasks in turn; from entry 72,000 on without `calendar`.

    `messages` are those of a user (`role`, `content` and `input`, which is None where the instruction holds all) and
    the assistant's, whose `content` is the right answer and whose `input` is None.

    Args:
        split: what is held out from training is known by its combination, so no two splits have one in common,
            whatever their seeds.
        seed: another seed gives other instructions of the same kind.
        num_instructions: default: 20,000 for training, 500 for validation, 1,000 for test. A shorter split is the
            beginning of a longer one.

    Raises:
        UserError: a task has fewer different instructions than that.
    """
    total = DEFAULT_NUM_INSTRUCTIONS[split] if num_instructions is None else num_instructions
    seen: set[str] = set()
    for index in range(total):
        tasks, place = (INSTRUCTION_TASKS, index) if index < ALL_IN_TURN else (ENDLESS_TASKS, index - ALL_IN_TURN)
        task = tasks[place % len(tasks)]
        instruction, material, answer = write_instruction(task, split, Chance(seed, FIRST_NUMBER[split] + index), seen)
        user = {"role": "user", "content": instruction, "input": material}
        assistant = {"role": "assistant", "content": answer, "input": None}
        yield {"messages": [user, assistant], "task": task}


def _split_of(combination: Combination) -> Split:
    """Whose a combination is, for ever."""
    digest = blake2b("\0".join(combination).encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "big") % 100
    if number < PERCENT_TEST:
        return "test"
    return "validation" if number < PERCENT_TEST + PERCENT_VALIDATION else "train"


def write_instruction(task: str, split: Split, chance: Chance, seen: set[str]) -> tuple[str, str | None, str]:
    """An exercise of the split in words that nobody has `seen`: instruction, input (or None) and answer.

    Args:
        task: one of `INSTRUCTION_TASKS`.
        seen: what was asked before; what is asked now is added.

    Raises:
        UserError: the task has nothing more to ask.
    """
    for _ in range(MOST_DRAWS):
        exercise = TASKS[task](chance, lambda combination: _split_of(combination) == split)
        phrasing = chance.choose(PHRASINGS[exercise.phrasings])
        combination = (*exercise.combination, phrasing) if exercise.of_few else exercise.combination
        if _split_of(combination) != split:
            continue
        instruction, material = _phrase(phrasing, exercise, chance)
        asked = f"{instruction}\n{material or ''}".casefold()
        if asked not in seen:
            seen.add(asked)
            return instruction, material, exercise.answer
    raise UserError(
        f"builtin:instructions has no more than {len(seen):,} different instructions for {split}, for {task} is at its "
        "end: ask for fewer."
    )


def _phrase(phrasing: str, exercise: Exercise, chance: Chance) -> tuple[str, str | None]:
    """Instruction and input; the material is put in last, for a sentence begins large and a list of words does not."""
    instruction, _, material = phrasing.partition(" >> ")
    return fill_template(instruction, exercise.facts, chance), material.format_map(exercise.facts) or None
