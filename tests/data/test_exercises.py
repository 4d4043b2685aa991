"""Stories and sheets of exercises: in turn, each a function of its number, and with nothing that is held out."""

from hfgpt.data import generate_instructions, generate_stories, load_text
from hfgpt.data.exercises import generate_stories_and_exercises
from hfgpt.data.instructions import INSTRUCTION_TASKS

DOCUMENTS = list(generate_stories_and_exercises())


def asked(split: str) -> set[str]:
    users = (row["messages"][0] for row in generate_instructions(split))
    return {"\n".join(part for part in (user["content"], user["input"]) if part) for user in users}


def test_every_other_document_is_a_story() -> None:
    assert DOCUMENTS[::2] == list(generate_stories())
    assert len(DOCUMENTS) == 5000


def test_a_document_depends_on_its_seed_and_number_alone() -> None:
    assert list(generate_stories_and_exercises(num_documents=5, first=2)) == DOCUMENTS[2:7]
    other = list(generate_stories_and_exercises(seed=1, num_documents=4))
    assert not set(other) & set(DOCUMENTS)


def test_a_sheet_is_eight_exercises_and_their_answers_all_of_the_training_part() -> None:
    exercises = [exercise for sheet in DOCUMENTS[1::2] for exercise in sheet.split("\n\n")]
    assert len(exercises) == 8 * 2500
    prompts = {exercise.rpartition("\n")[0] for exercise in exercises}
    assert all(prompts)
    assert not prompts & (asked("validation") | asked("test"))
    copies = [e for e in exercises if e.startswith("Change nothing, only repeat it.\n")]
    assert copies
    for copy in copies:
        _, words, answer = copy.split("\n")
        assert words == answer


def test_the_tasks_come_in_turn_over_the_sheets() -> None:
    """Every third sheet begins with the first task, so all twelve are met equally often."""
    assert len(INSTRUCTION_TASKS) * 2 == 3 * 8
    sums = [exercise for sheet in DOCUMENTS[1:61:6] for exercise in sheet.split("\n\n")][6::8]
    assert all(answer.isdigit() for answer in (exercise.rpartition("\n")[2] for exercise in sums))


def test_it_is_a_built_in_source_of_text() -> None:
    assert list(load_text("builtin:stories-and-exercises")["text"]) == DOCUMENTS
    streamed = load_text("builtin:stories-and-exercises", streaming=True)
    assert [row["text"] for row in streamed.take(3)] == DOCUMENTS[:3]
