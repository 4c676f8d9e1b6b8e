"""Runs that are killed, stopped, out of disk or damaged: nothing good is lost, and resuming is bit for bit."""

import errno
import json
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fitting_cases import STAGES, TOTAL, HookedData, assert_same, parameters, programs, train
from pyro.infer import RenyiELBO, Trace_ELBO

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import CheckpointError, RunFolderError
from gtm_pyro.guides import DeadReckoning
from gtm_pyro.inference import DisplacementRegression
from gtm_pyro.memory import Retrieved, SpatialMemory
from gtm_pyro.priors import MixturePrior, NormalMixture
from gtm_pyro.storage import atomic, checkpoints
from gtm_pyro.storage.checkpoints import Checkpoint
from gtm_pyro.storage.run_folder import RunFolder
from gtm_pyro.training.fitting import fit


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, torch.Tensor]:
    return parameters(train())


def numbered(step: int) -> Checkpoint:
    return Checkpoint(step, {"model.weight": torch.full((2, 3), float(step))}, {"run": {"step": step}})


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Every write beyond ``size`` bytes of a file fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_round_trip_keeps_tensors_and_state(tmp_path: Path) -> None:
    tensors = {"model.weight": torch.randn(2, 3).t(), "optimizer.step.model.weight": torch.tensor(7.0)}
    checkpoints.save(tmp_path, Checkpoint(7, tensors, {"run": {"seconds": 0.1 + 0.2}}))
    loaded = checkpoints.load_latest(tmp_path)
    assert loaded is not None and loaded.step == 7
    assert_same(loaded.tensors, tensors)
    assert loaded.state["run"] == {"seconds": 0.1 + 0.2}


def test_keeps_the_start_and_the_last_two(tmp_path: Path) -> None:
    for step in (0, 5, 10, 15):
        checkpoints.save(tmp_path, numbered(step))
    names = {f"step-{step:08d}{suffix}" for step in (0, 10, 15) for suffix in (".json", ".safetensors")}
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty", "missing"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, suffix: str, damage: str) -> None:
    for step in (5, 10):
        checkpoints.save(tmp_path, numbered(step))
    path = tmp_path / f"step-00000010{suffix}"
    if damage == "missing":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes({"truncated": content[: len(content) // 2], "foreign": b"[1, 2]", "empty": b""}[damage])
    latest = checkpoints.load_latest(tmp_path)
    assert latest is not None and latest.step == 5


def test_tensors_of_another_run_are_noticed(tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "a", numbered(10))
    checkpoints.save(tmp_path / "b", Checkpoint(10, {"model.weight": torch.ones(2, 3)}, {}))
    name = "step-00000010.safetensors"
    (tmp_path / "a" / name).write_bytes((tmp_path / "b" / name).read_bytes())
    with pytest.raises(CheckpointError, match="step-00000010"):
        checkpoints.load_latest(tmp_path / "a")


def test_no_checkpoint_is_none_and_only_damaged_ones_are_an_error(tmp_path: Path) -> None:
    assert checkpoints.load_latest(tmp_path) is None
    (tmp_path / "step-00000010.json").write_text("{")
    with pytest.raises(CheckpointError, match="step-00000010.json"):
        checkpoints.load_latest(tmp_path)


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, numbered(5))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with file_size_limit(64), pytest.raises(CheckpointError, match="last good checkpoint is step 5") as caught:
        checkpoints.save(tmp_path, numbered(10))
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("kind", ["safetensors", "json"])
def test_a_run_that_met_a_full_disk_resumes_bit_for_bit(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, torch.Tensor]
) -> None:
    def full(path: Path, content: bytes) -> None:
        if path.name == f"step-00000009.{kind}":
            raise OSError(errno.ENOSPC, "No space left on device")
        atomic.write_atomically(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_atomically", full)
        with pytest.raises(CheckpointError, match="No space left on device.*step 6"):
            train(out=tmp_path / "a")
    latest = checkpoints.load_latest(tmp_path / "a" / "checkpoint")
    assert latest is not None and latest.step == 6
    assert_same(parameters(train(out=tmp_path / "a", resume=True)), uninterrupted)


def test_a_killed_process_resumes_bit_for_bit(tmp_path: Path, uninterrupted: dict[str, torch.Tensor]) -> None:
    out = tmp_path / "a"
    script = Path(__file__).parent.with_name("fitting_cases.py")
    process = subprocess.Popen([sys.executable, str(script), str(out)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (out / "checkpoint" / "step-00000003.json").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    logged = (out / "metrics.jsonl").read_bytes()
    with pytest.raises(RunFolderError, match=f"another process is training in {out}"):
        train(out=out, resume=True)
    assert (out / "metrics.jsonl").read_bytes().startswith(logged)
    process.kill()
    process.communicate(timeout=30)
    latest = checkpoints.load_latest(out / "checkpoint")
    assert latest is not None and 3 <= latest.step < TOTAL
    assert process.returncode == -signal.SIGKILL
    resumed = train(out=out, resume=True)
    assert_same(parameters(resumed), uninterrupted)
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(2, TOTAL + 1, 2))


def test_a_kill_before_the_first_checkpoint_resumes_from_the_start(
    tmp_path: Path, uninterrupted: dict[str, torch.Tensor]
) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / ".step-00000000.safetensors.123.tmp").write_bytes(b"half")
    assert_same(parameters(train(out=tmp_path, resume=True)), uninterrupted)
    assert not list((tmp_path / "checkpoint").glob(".*"))


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path, uninterrupted: dict[str, torch.Tensor]) -> None:
    first = train(out=tmp_path / "a")
    again = train(out=tmp_path / "a", resume=True, model_seed=1)
    assert_same(parameters(again), uninterrupted)
    assert again.steps == TOTAL and again.metrics == first.metrics


def test_a_checkpoint_of_another_model_is_named_and_left_alone(tmp_path: Path) -> None:
    train(out=tmp_path / "a", stages=STAGES[:1])
    before = {path.name: path.read_bytes() for path in (tmp_path / "a" / "checkpoint").iterdir()}
    model, guide = programs(latent_dim=6)
    with pytest.raises(RunFolderError, match=r"model\.encoder\.statistics_layer\.weight: expected \(12, "):
        checkpoints.restore(tmp_path / "a", model, guide)
    assert {path.name: path.read_bytes() for path in (tmp_path / "a" / "checkpoint").iterdir()} == before


def test_restore_loads_the_parameters(tmp_path: Path) -> None:
    run = train(out=tmp_path / "a", stages=STAGES[:1])
    model, guide = programs(seed=1)
    assert checkpoints.restore(tmp_path / "a", model, guide) == run.steps
    assert_same(dict(model.state_dict()), parameters(run))


def test_restore_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="there is nothing"):
        checkpoints.restore(tmp_path / "missing", *programs())
    with pytest.raises(RunFolderError, match="no config.yaml"):
        checkpoints.restore(tmp_path, *programs())
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(RunFolderError, match="no checkpoint yet"):
        checkpoints.restore(tmp_path, *programs())


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("important")
    with pytest.raises(RunFolderError, match="holds thesis.txt"):
        train(HookedData(), out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(RunFolderError, match="got a file"):
        RunFolder.create(tmp_path / "thesis.txt")


def test_other_settings_are_refused(tmp_path: Path) -> None:
    train(out=tmp_path / "a", stages=STAGES[:1])
    with pytest.raises(RunFolderError, match="seed: expected 0, .*, got 5"):
        train(out=tmp_path / "a", stages=STAGES[:1], resume=True, seed=5)


class OtherGuide(DeadReckoning):
    """The same by another name."""


def darker(seed: int, episodes: Episodes) -> Episodes:
    return replace(episodes, frames=episodes.frames * 0.9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": Trace_ELBO(num_particles=2)}, "loss.num_particles: expected 1, .*, got 2"),
        ({"loss": RenyiELBO(alpha=0.5)}, "loss: expected Trace_ELBO, .*, got RenyiELBO"),
        ({"data": HookedData(darker)}, "data: expected HookedData, checksum .*, got HookedData, checksum"),
        ({"memory": SpatialMemory(3)}, "model.memory: expected .*num_neighbors=5.*num_neighbors=3"),
        ({"prior": MixturePrior(0.5)}, "model.prior: expected .*delta=0.0001.*delta=0.5"),
        (
            {"auxiliary": DisplacementRegression(2.0)},
            "auxiliary: expected None, .*, got DisplacementR",
        ),
        ({"initialisation": None}, "initialisation: expected Automatic.., .*, got None"),
        ({"guide": OtherGuide}, "guide: expected DeadReckoning, .*, got OtherGuide"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_objective_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(out=tmp_path / "a", stages=STAGES[:1], steps=1)
    model, guide = programs()
    for part in {"memory", "prior"} & change.keys():
        setattr(model, part, change[part])
    guide = change.get("guide", DeadReckoning)(model)
    settings = {"stages": STAGES[:1], "steps": 1, "out": tmp_path / "a", "resume": True, "progress": False}
    settings |= {name: change[name] for name in {"loss", "auxiliary", "initialisation"} & change.keys()}
    monkeypatch.setattr(DisplacementRegression, "__call__", lambda *_: torch.zeros(()))
    with pytest.raises(RunFolderError, match=message):
        fit(model, guide, change.get("data", HookedData()), **settings)


class Plain:
    """Its repr holds its address, which says nothing about it."""

    def __init__(self, prior: MixturePrior) -> None:
        self.prior = prior

    def __call__(self, read: Retrieved) -> NormalMixture:
        return self.prior(read)


def test_the_same_objective_is_recognised(tmp_path: Path) -> None:
    """Also a loss that was used before, and a class without a repr of its own."""
    loss = Trace_ELBO(num_particles=2, vectorize_particles=True)  # guesses max_plate_nesting on its first use
    for resume in (False, True):
        model, guide = programs()
        del model.prior
        model.prior = Plain(MixturePrior())
        settings = {"stages": STAGES[:1], "steps": 1, "out": tmp_path / "a", "progress": False}
        fit(model, guide, HookedData(), loss=loss, resume=resume, **settings)


def test_the_lock_is_the_holders_and_ends_with_it(tmp_path: Path) -> None:
    folder, other = RunFolder.create(tmp_path), RunFolder(tmp_path)
    refused: list[str] = []

    def try_to_hold() -> None:
        try:
            with other.held():
                pass
        except RunFolderError as error:
            refused.append(str(error))

    for expected in (1, 2):
        with folder.held(), other.held():  # once more in the same thread
            thread = threading.Thread(target=try_to_hold)
            thread.start()
            thread.join()
        try_to_hold()
        assert refused == [f"another process is training in {tmp_path}"] * expected


def test_metrics_survive_a_line_that_was_cut_short(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a")
    for step in (2, 4, 6):
        folder.append_metrics({"step": step})
    with folder.metrics.open("a") as file:
        file.write('{"step": 8, "lo')
    assert [line["step"] for line in folder.read_metrics()] == [2, 4, 6]
    assert folder.truncate_metrics(4) == [{"step": 2}, {"step": 4}]
    assert folder.metrics.read_text() == '{"step": 2}\n{"step": 4}\n'
