"""A full disk: every writer says so in one line, keeps what was there, and leaves nothing else behind."""

import ast
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from command_cases import SMALL

import gtm_pyro
from gtm_pyro.cli import main
from gtm_pyro.cli.inputs import trained
from gtm_pyro.diagnostics import diagnose
from gtm_pyro.diagnostics.diagnosis import Diagnosis
from gtm_pyro.diagnostics.export import save_diagnosis
from gtm_pyro.diagnostics.posterior import add_groups, posterior, save_posterior
from gtm_pyro.episodes import Episodes, save_shards
from gtm_pyro.errors import GTMPyroError
from gtm_pyro.evaluation.evaluation import Evaluation, evaluate
from gtm_pyro.evaluation.generation import Generated, generate
from gtm_pyro.evaluation.localisation import Localisation, localise, two_walks
from gtm_pyro.report.comparison import Comparison, compare
from gtm_pyro.report.figures import save_figures
from gtm_pyro.report.localisation_figure import save_localisation_figure
from gtm_pyro.report.page import write_report
from gtm_pyro.report.video import save_video
from gtm_pyro.storage import checkpoints
from gtm_pyro.storage.atomic import write_result
from gtm_pyro.storage.checkpoints import Checkpoint
from gtm_pyro.storage.run_folder import RunFolder
from gtm_pyro.tasks.labyrinth.shards import Recipe, write_shard

RECIPE = Recipe("labyrinth-rotation", "raycaster", 0, 3)


@contextmanager
def full_disk(size: int = 40) -> Iterator[None]:
    """No file can grow beyond so many bytes; Python ignores the signal that comes with it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@dataclass
class Made:
    """What there is to write."""

    evaluation: Evaluation
    tree: Any
    generated: Generated
    diagnosis: Diagnosis
    localisation: Localisation
    comparison: Comparison
    episodes: Episodes
    shard: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def made(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    experiment, _ = trained(RunFolder(run), {})
    elsewhere, _ = trained(RunFolder(run), {"guide": "ParticleGuide", "data.start": "random"})
    model: Any = experiment.model
    guide: Any = experiment.guide
    finder: Any = elsewhere.guide
    episodes = experiment.held_out(num_episodes=2)
    walks = two_walks(experiment.data, elsewhere.data, num_episodes=1, memorised_steps=12, observed_steps=4)
    other = shutil.copytree(run, tmp_path_factory.mktemp("other") / "run")
    shard = {"frames": np.zeros((32, 3, 3, 32, 32), np.uint8), "actions": np.zeros((32, 3, 3), np.uint8)}
    return Made(
        evaluate(model, guide, episodes, iwae_particles=0),
        posterior(model, guide, episodes[:1], 2),
        generate(model, guide, experiment.data, steps=9, num_observed=24),
        diagnose(model, guide, episodes, checks=["khat"], num_draws=100),
        localise(model, finder, *walks, mapper=guide),
        compare([run, other]),
        episodes,
        shard | {"poses": np.zeros((32, 3, 3))},
    )


def _groups(made: Made) -> dict[str, xarray.Dataset]:
    return {"diagnostics/khat": xarray.Dataset({"khat": ("pixel", np.arange(9.0))})}


Write = Callable[[Made, Path], Any]
WRITERS: dict[str, Write] = {
    "posterior.nc": lambda made, path: save_posterior(made.tree, path / "posterior.nc"),
    "groups of posterior.nc": lambda made, path: add_groups(_groups(made), path / "posterior.nc", "diagnostics"),
    "evaluation.json": lambda made, path: made.evaluation.save(path / "evaluation.json"),
    "evaluation_by_horizon.npz": lambda made, path: made.evaluation.save_by_horizon(path / "by_horizon.npz"),
    "figures": lambda made, path: save_figures(made.evaluation, path / "figures"),
    "figures of a diagnosis": lambda made, path: made.diagnosis.save_figures(path),
    "a diagnosis": lambda made, path: save_diagnosis(made.diagnosis, RunFolder(path), 6),
    "report.html": lambda made, path: write_report(RunFolder(path)),
    "generated.npz": lambda made, path: made.generated.save(path / "generated.npz"),
    "film.gif": lambda made, path: save_video(made.generated, path / "film.gif"),
    "film.mp4": lambda made, path: save_video(made.generated, path / "film.mp4"),
    "localisation.json": lambda made, path: made.localisation.save(path / "localisation.json"),
    "localisation.png": lambda made, path: save_localisation_figure(made.localisation, path / "localisation.png"),
    "a comparison's page": lambda made, path: made.comparison.save(path / "compare.html"),
    "a comparison's table": lambda made, path: made.comparison.save(path / "compare.csv"),
    "a comparison's JSON": lambda made, path: made.comparison.save(path / "compare.json"),
    "a checkpoint": lambda made, path: checkpoints.save(path, Checkpoint(7, {"model.a": torch.zeros(99)}, {})),
    "config.yaml": lambda made, path: write_result(path / "config.yaml", b"seed: 0\n" * 9),
    "metrics.jsonl": lambda made, path: RunFolder(path).append_metrics({"step": 1, "loss": 1.2345678901234567}),
    "metrics.jsonl, cut": lambda made, path: RunFolder(path).truncate_metrics(5),
    "episodes": lambda made, path: made.episodes.save(path / "episodes.npz"),
    "shards": lambda made, path: save_shards(made.episodes, path / "shards", shard_size=1),
    "shards of a labyrinth": lambda made, path: write_shard(path, RECIPE, "train", 0, made.shard),
}


def _contents(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk(name: str, made: Made, tmp_path: Path) -> None:
    write = WRITERS[name]
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1, "loss": 2.0, "seconds": 3.0}\n')
    if name != "shards":  # which are not written where there are some
        write(made, tmp_path)
    before = _contents(tmp_path)
    assert len(before) > 1 or name in ("shards", "metrics.jsonl", "metrics.jsonl, cut")
    with full_disk(), pytest.raises(GTMPyroError, match="could not be written .*File too large"):
        write(made, tmp_path)
    assert _contents(tmp_path) == before, "what was there is kept, and nothing is left behind"


def test_a_shard_that_fails_takes_the_others_with_it(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, saved = Episodes.save, []

    def fail_later(self: Episodes, path: Path) -> None:
        saved.append(path)
        with full_disk(1 << 30 if len(saved) == 1 else 40):
            save(self, path)

    monkeypatch.setattr(Episodes, "save", fail_later)
    with pytest.raises(GTMPyroError, match="episodes-00001.npz: could not be written"):
        save_shards(made.episodes, tmp_path, shard_size=1)
    assert not list(tmp_path.iterdir()), "a part of a data set would pass for the whole"


def test_a_training_tells_of_a_full_disk_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorBoard writes in a thread of its own, which must not print what the line says."""
    append = RunFolder.append_metrics

    def fill_up(self: RunFolder, line: dict[str, Any]) -> None:
        append(self, line)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    monkeypatch.setattr(RunFolder, "append_metrics", fill_up)
    words = ["train", "image-navigation", "--out", str(tmp_path / "a"), *SMALL, "--checkpoint_every", "9"]
    with full_disk(1 << 30):
        assert main(words) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err and err.count("gtm-pyro: error: ") == 1
    assert err.endswith("metrics.jsonl: could not be written (File too large)\n")
    assert len(RunFolder(tmp_path / "a").read_metrics()) == 1


def test_the_process_survives_a_full_disk(copied: Path, tmp_path: Path) -> None:
    """The whole command, in a process of its own: HDF5 used to take it down after the message."""
    command = f"""
import resource, sys
from gtm_pyro.cli import main
from gtm_pyro.storage import progress
progress._PATIENCE = 1e6  # a busy machine is no reason for a second line
resource.setrlimit(resource.RLIMIT_FSIZE, (8000, resource.RLIM_INFINITY))
words = ["evaluate", {str(copied)!r}, "--report", {str(tmp_path / "out")!r}, "--evaluation.num_episodes", "1"]
sys.exit(main(words))
"""
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert done.returncode == 2, done
    assert done.stderr.count("\n") == 1 and "posterior.nc: could not be written (File too large)" in done.stderr
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["evaluation.json"]


def test_posterior_from_memory_is_what_a_file_of_xarrays_holds(made: Made, tmp_path: Path) -> None:
    made.tree.to_netcdf(tmp_path / "direct.nc", engine="h5netcdf")
    save_posterior(made.tree, tmp_path / "posterior.nc")
    with (
        xarray.open_datatree(tmp_path / "direct.nc") as direct,
        xarray.open_datatree(tmp_path / "posterior.nc") as ours,
    ):
        xarray.testing.assert_identical(direct.load(), ours.load())
        xarray.testing.assert_identical(ours["posterior"].to_dataset(), made.tree["posterior"].to_dataset())
        assert ours.attrs == made.tree.attrs


def test_files_are_written_in_one_place_only() -> None:
    """All else hands bytes to ``gtm_pyro.storage.atomic``."""
    allowed = {
        "atomic.py",  # the one way
        "doom.py", "doom_process.py", "worker_process.py",  # a temporary folder's own
        "run_folder.py",  # a line added to metrics.jsonl, and the lock
        "shards.py",  # a probe
    }  # fmt: skip
    package = Path(gtm_pyro.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _writes(node):
                found.add(path.name)
    assert found <= allowed


def _writes(call: ast.Call) -> bool:
    """Whether a call writes into a file that it is given the name of."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name == "open":
        modes = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        return any(mode.strip("bt+") in ("w", "a", "x") for mode in modes)
    if name == "to_netcdf":
        return bool(call.args)
    return name in ("write_bytes", "write_text", "savez", "save_file", "imwrite")
