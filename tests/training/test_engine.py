"""The loop: what it computes, beside plain PyTorch, and what it tells."""

import contextlib
import math

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from hfgpt.data.order import LengthGroupedOrder, sample_indices
from hfgpt.errors import UserError
from hfgpt.training.engine import evaluate, start_accelerator
from hfgpt.training.events import Callback
from hfgpt.training.optimization import learning_rate_at

BATCH_SPLITS = [None, 4, 2, 1]


class Recorder(Callback):
    """Notes every event in order, with what came with it."""

    def __init__(self) -> None:
        self.events: list[tuple] = []

    def on_train_begin(self, run):
        self.events.append(("begin", run.step))

    def on_step(self, run, report):
        numbers = (report.step, report.loss, report.learning_rate, report.grad_norm, report.num_targets, report.seconds)
        self.events.append(("step", *numbers))

    def on_log(self, run, summary):
        self.events.append(("log", run.step, summary))

    def on_evaluation(self, run, evaluation):
        self.events.append(("evaluation", evaluation.step, evaluation))

    def on_train_end(self, run):
        self.events.append(("end", run.step))

    def all(self, kind: str) -> list[tuple]:
        return [event[1:] for event in self.events if event[0] == kind]

    @property
    def losses(self) -> list[float]:
        return [event[1] for event in self.all("step")]


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_equal_weights(left, right, **tolerance) -> None:
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], **({"rtol": 0, "atol": 0} | tolerance), msg=name)


def equal_weights(left, right) -> bool:
    return all(torch.equal(value, right[name]) for name, value in left.items())


def train_by_hand(model, examples, config) -> tuple[list[float], list[float]]:
    """The same training in plain PyTorch: each sequence by itself, no padding, no accumulation library."""
    decaying = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decaying, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    betas = (config.adam_beta1, config.adam_beta2)
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.adam_epsilon)
    losses, norms = [], []
    size, steps_per_epoch = config.global_batch_size, len(examples) // config.global_batch_size
    for step in range(config.max_steps):
        epoch, position = divmod(step, steps_per_epoch)
        order = sample_indices(config.seed, epoch, len(examples), position * size, (position + 1) * size)
        sequences = [torch.tensor(examples[int(index)]["tokens"]) for index in order]
        targets = sum(len(sequence) - 1 for sequence in sequences)
        optimizer.zero_grad()
        total = sum(
            F.cross_entropy(model(input_ids=sequence[None]).logits[0, :-1], sequence[1:], reduction="sum")
            for sequence in sequences
        )
        (total / targets).backward()
        limit = config.max_grad_norm or math.inf
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), limit)))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, config.max_steps, config)
        optimizer.step()
        losses.append(total.item() / targets)
    return losses, norms


@pytest.mark.parametrize("max_grad_norm", [None, 0.05])
def test_training_is_the_plain_loop(laboratory, model_name, max_grad_norm) -> None:
    recorder, task = Recorder(), laboratory.task()
    model = laboratory.model(model_name)
    run = laboratory.train(model, task, [recorder], max_grad_norm=max_grad_norm, warmup_steps=2, weight_decay=0.2)
    by_hand = laboratory.model(model_name)
    losses, norms = train_by_hand(by_hand, task.train_examples, run.config)
    assert recorder.losses == pytest.approx(losses, rel=1e-5)
    assert [event[3] for event in recorder.all("step")] == pytest.approx(norms, rel=1e-4)
    assert_equal_weights(weights(model), weights(by_hand), rtol=1e-4, atol=2e-6)
    assert losses[-1] < losses[0]


def test_clipping_changes_the_training_where_it_bites(laboratory) -> None:
    models = [laboratory.model() for _ in range(3)]
    for model, limit in zip(models, (None, 1e6, 1e-3), strict=True):
        laboratory.train(model, max_grad_norm=limit)
    free, wide, narrow = (weights(model) for model in models)
    assert equal_weights(free, wide)
    assert not equal_weights(free, narrow)


def test_the_batch_split_changes_neither_loss_nor_weights(laboratory, model_name) -> None:
    """Sequences of uneven length: a mean of means of micro-batches would weigh targets unevenly."""
    results = []
    for micro in BATCH_SPLITS:
        model, recorder = laboratory.model(model_name), Recorder()
        laboratory.train(model, callbacks=[recorder], micro_batch_size=micro)
        results.append((recorder, weights(model)))
    whole, whole_weights = results[0]
    for recorder, split_weights in results[1:]:
        assert recorder.losses == pytest.approx(whole.losses, rel=2e-6)
        assert [e[4] for e in recorder.all("step")] == [e[4] for e in whole.all("step")]
        assert_equal_weights(split_weights, whole_weights, rtol=1e-4, atol=2e-6)


def test_a_micro_batch_without_targets_adds_nothing(laboratory) -> None:
    """Sequences of one token have no next one; a mean over them alone would be 0 / 0."""
    lengths = [1, 1, 9, 5, 1, 7, 1, 3]
    examples = laboratory.Examples(
        [{"index": i, "tokens": [2, 3, 5, 7, 11, 13, 17, 19, 23][:n]} for i, n in enumerate(lengths)]
    )
    losses = []
    for micro in (8, 1):
        recorder = Recorder()
        laboratory.train(
            laboratory.model(), laboratory.NextToken(examples, examples), [recorder], micro_batch_size=micro
        )
        losses.append(recorder.losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert all(map(math.isfinite, losses[0]))


def test_evaluation_is_the_mean_over_all_targets_each_counted_once(laboratory, model_name) -> None:
    """11 sequences in batches of 4: the last batch is not full, and the sequences are of uneven length."""
    model, task = laboratory.model(model_name), laboratory.task(num_validation=11)
    for size in (4, 11, 1):
        config = laboratory.config(global_batch_size=size)
        metrics = evaluate(task, model, config, start_accelerator(config))
        expected, num_targets = laboratory.mean_loss(model, task.validation_examples)
        assert metrics == {"loss": pytest.approx(expected, rel=1e-6), "targets": num_targets}


def are_close(predicted, labels):
    """A measure that tells something of a model that is not trained."""
    return (predicted - labels).abs() < 10


def measured(task):
    """The task with two measures, of which the second is not a loss, on sequences that are sorted by their length."""

    class Measured(type(task)):
        measures = ("loss", "close")

        def lengths(self, examples):
            return [len(example["tokens"]) for example in examples.examples]

        def evaluation_sums(self, model, batch):
            predicted, labels = model(batch["input_ids"]).logits[:, :-1].argmax(dim=-1), batch["labels"][:, 1:]
            return {"close": are_close(predicted, labels).sum(), **super().evaluation_sums(model, batch)}

    return Measured(task.train_examples, task.validation_examples)


class Part:
    """One of several processes, as far as an evaluation asks; `exchange` is what it does with its sums."""

    device, autocast = torch.device("cpu"), staticmethod(contextlib.nullcontext)

    def __init__(self, rank: int, num_processes: int, exchange) -> None:
        self.process_index, self.num_processes, self.exchange = rank, num_processes, exchange

    def reduce(self, value, reduction):
        assert reduction == "sum"
        return self.exchange(value.clone())


@pytest.mark.parametrize("halvings", [0, 2])
@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_every_measure_is_the_mean_over_all_targets_on_any_number_of_processes(
    laboratory, model_name, num_processes, halvings
) -> None:
    model, task = laboratory.model(model_name), measured(laboratory.task(num_validation=17))
    config = laboratory.config(global_batch_size=6)
    own: list[torch.Tensor] = []
    for rank in range(num_processes):
        evaluate(task, model, config, Part(rank, num_processes, lambda value: own.append(value) or value), halvings)
    sums = iter([sum(own[::2]), sum(own[1::2])])  # of the measures, and of the targets
    metrics = evaluate(task, model, config, Part(0, num_processes, lambda value: next(sums)), halvings)

    loss, num_targets = laboratory.mean_loss(model, task.validation_examples)
    num_close = 0
    for example in task.validation_examples.examples:
        tokens = torch.tensor([example["tokens"]])
        num_close += int(are_close(model(tokens).logits[0, :-1].argmax(dim=-1), tokens[0, 1:]).sum())
    assert 0 < num_close < num_targets
    close = pytest.approx(num_close / num_targets, rel=1e-12)
    assert metrics == {"loss": pytest.approx(loss, rel=1e-6), "close": close, "targets": num_targets}


def test_an_evaluation_by_length_judges_the_same_examples_with_the_same_means(laboratory) -> None:
    model, task = laboratory.model(), laboratory.task(num_validation=30)
    for max_eval_batches in (None, 3):
        config = laboratory.config(global_batch_size=4, max_eval_batches=max_eval_batches)
        by_length, in_order = measured(task), measured(task)
        in_order.lengths = lambda examples: None
        found, expected = (evaluate(one, model, config, start_accelerator(config)) for one in (by_length, in_order))
        assert found == pytest.approx(expected, rel=1e-6)
        judged, reference = (sorted(index for batch in one.seen for index in batch) for one in (by_length, in_order))
        assert judged == reference == list(range(12 if max_eval_batches else 30))
        lengths = by_length.lengths(task.validation_examples)
        assert [lengths[index] for batch in by_length.seen for index in batch] == sorted(lengths[: len(judged)])


def test_training_batches_are_those_of_the_order_by_length(laboratory) -> None:
    task = measured(laboratory.task(num_train=48))
    laboratory.train(laboratory.model(), task, global_batch_size=8, max_steps=6, eval_steps=None)
    lengths = task.lengths(task.train_examples)
    expected = LengthGroupedOrder(seed=42, lengths=lengths, batch_size=8).indices(0).reshape(6, 8).tolist()
    assert [batch for batch in task.seen if batch in expected] == expected


def test_evaluation_turns_dropout_off_and_leaves_the_model_as_it_was(laboratory) -> None:
    model, task, config = laboratory.model(dropout=0.5), laboratory.task(), laboratory.config()
    accelerator = start_accelerator(config)
    for mode in (True, False):
        model.train(mode)
        before = torch.get_rng_state()
        first, second = (evaluate(task, model, config, accelerator) for _ in range(2))
        assert first == second
        assert model.training is mode
        assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_events_come_in_the_documented_order(laboratory) -> None:
    recorder = Recorder()
    laboratory.train(laboratory.model(), callbacks=[recorder], max_steps=5, logging_steps=2, eval_steps=3)
    assert [event[:2] for event in recorder.events] == [
        ("begin", 0),
        ("evaluation", 0),
        ("step", 1),
        ("step", 2),
        ("log", 2),
        ("step", 3),
        ("evaluation", 3),
        ("step", 4),
        ("log", 4),
        ("step", 5),
        ("log", 5),
        ("evaluation", 5),
        ("end", 5),
    ]


def test_without_eval_steps_there_are_a_first_and_a_last_evaluation(laboratory) -> None:
    recorder = Recorder()
    run = laboratory.train(laboratory.model(), callbacks=[recorder], max_steps=4, eval_steps=None)
    assert [evaluation.step for evaluation in run.evaluations] == [0, 4]
    assert [event[1] for event in recorder.all("evaluation")] == run.evaluations


def test_an_evaluation_on_the_last_step_is_not_made_twice(laboratory) -> None:
    run = laboratory.train(laboratory.model(), max_steps=4, eval_steps=2)
    assert [evaluation.step for evaluation in run.evaluations] == [0, 2, 4]


def test_listeners_hear_each_event_in_the_order_in_which_they_were_given(laboratory) -> None:
    heard = []

    class Named(Callback):
        def __init__(self, name):
            self.name = name

        def on_step(self, run, report):
            heard.append((report.step, self.name))

    laboratory.train(laboratory.model(), callbacks=[Named("a"), Named("b")], max_steps=2)
    assert heard == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]


def test_step_reports_carry_the_numbers_of_their_step(laboratory) -> None:
    recorder, task = Recorder(), laboratory.task()
    run = laboratory.train(laboratory.model(), task, [recorder], warmup_steps=2)
    reports = recorder.all("step")
    for index, (step, loss, rate, norm, num_targets, seconds) in enumerate(reports):
        order = sample_indices(run.config.seed, index // 3, 24, index % 3 * 8, (index % 3 + 1) * 8)
        expected = sum(len(task.train_examples[int(i)]["tokens"]) - 1 for i in order)
        assert (step, num_targets) == (index + 1, expected)
        assert rate == learning_rate_at(index, 6, run.config)
        assert 0 < loss < 10
        assert norm > 0
        assert 0 < seconds < 60
    assert run.step == run.num_steps == 6


def test_the_first_step_has_the_loss_of_the_untrained_model(laboratory) -> None:
    recorder, task = Recorder(), laboratory.task()
    run = laboratory.train(laboratory.model(), task, [recorder])
    first = sample_indices(run.config.seed, 0, 24, 0, 8)
    batch = laboratory.Examples([task.train_examples[int(index)] for index in first])
    expected, _ = laboratory.mean_loss(laboratory.model(), batch)
    assert recorder.losses[0] == pytest.approx(expected, rel=1e-6)


def test_log_lines_average_over_targets_since_the_line_before(laboratory) -> None:
    recorder = Recorder()
    laboratory.train(laboratory.model(), callbacks=[recorder], max_steps=5, logging_steps=2)
    steps = recorder.all("step")
    for (step, summary), part in zip(recorder.all("log"), (steps[:2], steps[2:4], steps[4:]), strict=True):
        targets = sum(report[4] for report in part)
        assert summary["step"] == step
        assert summary["train_loss"] == pytest.approx(sum(report[1] * report[4] for report in part) / targets)
        assert summary["learning_rate"] == part[-1][2]
        assert summary["grad_norm"] == part[-1][3]
        assert summary["tokens_seen"] == sum(report[4] for report in steps[:step])
        assert summary["tokens_per_second"] == pytest.approx(targets / sum(report[5] for report in part))


def test_two_runs_with_one_seed_are_bit_equal_with_dropout_and_another_seed_differs(laboratory, model_name) -> None:
    results = []
    for seed in (1, 1, 2):
        model, recorder = laboratory.model(model_name, dropout=0.2), Recorder()
        laboratory.train(model, callbacks=[recorder], seed=seed)
        results.append((recorder.losses, weights(model)))
    assert results[0][0] == results[1][0]
    assert equal_weights(results[0][1], results[1][1])
    assert results[0][0] != results[2][0]


def test_how_often_is_evaluated_or_logged_changes_no_weight(laboratory) -> None:
    trained = []
    for fields in ({"eval_steps": None}, {"eval_steps": 1, "logging_steps": 1, "max_eval_batches": 1}):
        model = laboratory.model(dropout=0.2)
        laboratory.train(model, **fields)
        trained.append(weights(model))
    assert equal_weights(*trained)


def test_worker_processes_change_no_weight(laboratory) -> None:
    trained = []
    for workers in (0, 2):
        model = laboratory.model(dropout=0.2)
        laboratory.train(model, dataloader_num_workers=workers, micro_batch_size=2, max_steps=3)
        trained.append(weights(model))
    assert equal_weights(*trained)


def test_gradient_checkpointing_changes_no_number(laboratory, model_name) -> None:
    results = []
    for checkpointing in (False, True):
        model, recorder = laboratory.model(model_name, dropout=0.2), Recorder()
        laboratory.train(model, callbacks=[recorder], gradient_checkpointing=checkpointing)
        assert any(getattr(part, "gradient_checkpointing", False) for part in model.modules()) is checkpointing
        results.append((recorder.losses, weights(model)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    assert_equal_weights(results[0][1], results[1][1], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_compiling_changes_the_numbers_by_rounding_only(laboratory) -> None:
    results = []
    for compiling in (False, True):
        model, recorder = laboratory.model(), Recorder()
        laboratory.train(model, callbacks=[recorder], torch_compile=compiling, max_steps=2)
        results.append((recorder.losses, weights(model)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    assert_equal_weights(results[0][1], results[1][1], rtol=1e-3, atol=1e-5)


def test_bfloat16_trains_fp32_weights_to_nearly_the_same_loss(laboratory) -> None:
    results = {}
    for precision in ("no", "bf16"):
        AcceleratorState._reset_state()
        model, recorder = laboratory.model(), Recorder()
        laboratory.train(model, callbacks=[recorder], mixed_precision=precision)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        results[precision] = recorder.losses
    assert results["bf16"] == pytest.approx(results["no"], rel=0.01)
    assert results["bf16"] != results["no"]


def test_a_number_format_that_the_device_lacks_is_one_sentence(laboratory) -> None:
    with pytest.raises(UserError, match="mixed_precision 'fp16' cannot be used here"):
        start_accelerator(laboratory.config(mixed_precision="fp16"))


def test_a_second_number_format_in_one_python_process_is_one_sentence(laboratory) -> None:
    start_accelerator(laboratory.config(mixed_precision="bf16"))
    with pytest.raises(UserError, match="mixed_precision 'no' cannot be used here"):
        start_accelerator(laboratory.config(mixed_precision="no"))


def test_processes_that_cannot_share_the_batch_are_known_at_the_start(laboratory, monkeypatch) -> None:
    monkeypatch.setattr(Accelerator, "num_processes", 3)
    with pytest.raises(UserError, match="number of processes"):
        start_accelerator(laboratory.config(global_batch_size=8))


def test_frozen_weights_stay(laboratory) -> None:
    model = laboratory.model()
    model.model.requires_grad_(False)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())  # untied, so that it can move
    before = weights(model)
    laboratory.train(model)
    moved = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    assert moved == {"lm_head.weight"}
