"""The storage tracker around loops of one's own."""

import gc

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402, TID253 -- after the skip

from pytest_llmmem.models.steps.tracker import StorageTracker  # noqa: E402

WIDE = 256
BYTES = WIDE * WIDE * 4


def make() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDE, WIDE, bias=False), nn.ReLU(), nn.Linear(WIDE, WIDE, bias=False))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: int = 8) -> torch.Tensor:
    loss = model(torch.ones(batch, WIDE)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss


def test_parameters_gradients_and_optimizer_state_are_told_apart() -> None:
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)

    with StorageTracker(model, optimizer) as tracker:
        step(model, optimizer)
        step(model, optimizer)
    memory = tracker.memory()

    assert memory.parameters_bytes == 2 * BYTES
    assert memory.gradients_bytes == 2 * BYTES
    assert memory.optimizer_bytes == 4 * BYTES + 2 * 4  # and a count of steps for each parameter
    assert [(each.step, each.phase) for each in memory.phases] == [
        (number, phase) for number in (1, 2) for phase in ("forward", "backward", "optimizer")
    ]


def test_a_model_and_an_optimizer_that_were_not_given_are_found() -> None:
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    with StorageTracker() as tracker:
        step(model, optimizer)
    memory = tracker.memory()

    assert memory.parameters_bytes == 2 * BYTES
    assert memory.optimizer_bytes == 2 * BYTES


def test_state_that_is_there_before_the_first_step_is_the_optimizer_s() -> None:
    model = make()
    optimizer = torch.optim.AdamW(model.parameters())
    step(model, optimizer)

    with StorageTracker(model, optimizer) as tracker:
        step(model, optimizer)

    first = tracker.memory().phases[0]
    assert first.phase == "forward"
    assert first.by_kind["optimizer"] == 4 * BYTES + 2 * 4


def test_what_is_kept_for_backward_is_activations_and_the_rest_is_temporary() -> None:
    model = nn.Sequential(nn.Linear(WIDE, WIDE), nn.Sigmoid(), nn.Linear(WIDE, WIDE))
    inputs = torch.ones(64, WIDE)

    with StorageTracker(model) as tracker:
        model(inputs).sum().backward()
    memory = tracker.memory()

    assert memory.inputs_bytes == inputs.nbytes
    # the result of the sigmoid, and of the last layer, which nobody needs but who holds it
    assert memory.activations_bytes == pytest.approx(inputs.nbytes, abs=8)
    assert memory.kept[0].module == "1"


def test_a_backward_operation_is_of_the_module_of_its_forward() -> None:
    model = make()

    with StorageTracker(model) as tracker:
        model(torch.ones(8, WIDE)).sum().backward()

    backward = next(each for each in tracker.memory().phases if each.phase == "backward")
    assert backward.module in {"0", "2"}


def test_an_operation_without_gradients_does_not_take_over_the_backward_pass_of_the_one_before() -> None:
    class Positions(nn.Module):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return hidden.detach() * 0 + torch.arange(hidden.shape[1])[:, None]

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = nn.Embedding(WIDE, WIDE), Positions()

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            hidden = self.tokens(tokens)
            return hidden + self.positions(hidden)

    model = Model()

    with StorageTracker(model) as tracker:
        model(torch.ones(2, 8, dtype=torch.long)).sum().backward()

    (log,) = tracker.logs
    of_backward = {each.storage.module for each in log.events if "embedding_dense_backward" in str(each.storage.op)}
    assert of_backward == {"tokens"}


def test_gradients_of_several_batches_are_there_once() -> None:
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, foreach=False)

    with StorageTracker(model, optimizer) as tracker:
        for _ in range(3):
            model(torch.ones(8, WIDE)).sum().backward()
        optimizer.step()
    memory = tracker.memory()

    assert memory.gradients_bytes == 2 * BYTES
    assert memory.steps == 1


def test_two_optimizers_that_step_together_end_one_step() -> None:
    first, second = make(), make()
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in (first, second)]

    with StorageTracker(first, second, *optimizers) as tracker:
        for _ in range(2):
            second(first(torch.ones(8, WIDE))).sum().backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    memory = tracker.memory()

    assert memory.steps == 2
    assert memory.parameters_bytes == 4 * BYTES


def test_outputs_that_are_kept_alive_make_the_third_step_higher_than_the_second() -> None:
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    kept = []

    with StorageTracker(model, optimizer) as tracker:
        for _ in range(3):
            outputs = model(torch.ones(512, WIDE))
            outputs.mean().backward()
            kept.append(outputs)
            optimizer.step()
            optimizer.zero_grad()
    memory = tracker.memory()

    assert memory.peak_of_step(3) == memory.peak_of_step(2) + kept[0].nbytes


def test_steps_that_are_over_leave_no_events_behind() -> None:
    model = make()
    optimizer = torch.optim.AdamW(model.parameters())

    with StorageTracker(model, optimizer) as tracker:
        for _ in range(5):
            step(model, optimizer)

    peaks = [tracker.memory().peak_of_step(number) for number in range(2, 6)]
    assert len(set(peaks)) == 1


def test_hooks_are_gone_after_the_block() -> None:
    model = make()
    with StorageTracker(model) as tracker:
        pass
    model(torch.ones(8, WIDE)).sum().backward()

    gc.collect()
    assert tracker.memory().gradients_bytes == 0
    assert not model._forward_pre_hooks


def test_loss_item_clipping_and_a_gradient_scaler_are_followed() -> None:
    model = make()
    optimizer = torch.optim.AdamW(model.parameters())
    scaler = torch.amp.GradScaler("cpu")

    with StorageTracker(model, optimizer) as tracker:
        for _ in range(2):
            loss = model(torch.ones(8, WIDE)).square().mean()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            assert loss.item() >= 0
    memory = tracker.memory()

    assert memory.steps == 2
    assert memory.optimizer_bytes == 4 * BYTES + 2 * 4
