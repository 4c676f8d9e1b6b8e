"""What the README and the docs show works as shown, with small settings."""

import re
import shlex
import shutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from page_cases import ROOT, blocks, commands, run
from PIL import Image

from gtm_pyro.experiment.config import resolve
from gtm_pyro.experiment.files import read_experiment


def save_images(folder: Path) -> None:
    folder.mkdir()
    torch.manual_seed(0)
    for number in range(4):
        pixels = torch.randint(256, (40, 40, 3), dtype=torch.uint8).numpy()
        Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # all are there before one is changed: what is imported later would keep the change
    names = ("shards", "store", "data_command", "sources")
    modules = [import_module(f"gtm_pyro.tasks.labyrinth.{name}") for name in names]
    for module in modules[:3]:  # a shard is made whole, whatever is asked for
        monkeypatch.setattr(module, "SHARD_SIZE", 4)
    for name in ("photos", "other"):
        save_images(tmp_path / name)
    return tmp_path


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks("README.md", "python")
    code = [line for line in example.splitlines() if line and not line.startswith(("from", "import"))]
    assert len(code) <= 10
    small = example.replace("steps=3000", "steps=2").replace(
        "sample(64, num_observed=256, num_predicted=256", "sample(2, num_observed=40, num_predicted=8"
    )
    assert small.count("steps=2") == 1 and "sample(2" in small
    exec(compile(small, "README.md", "exec"), {})
    assert "posterior_predictive" in capsys.readouterr().out


def test_the_commands_run(workplace: Path) -> None:
    for command in commands("README.md"):
        run(command)
    assert (workplace / "runs/mine/report.html").is_file() and (workplace / "rollout.npz").is_file()


def test_the_page_on_labyrinths_runs(workplace: Path) -> None:
    for command in commands("docs/labyrinth.md"):
        if command.startswith("gtm-pyro data"):
            if find_spec("vizdoom") is None:
                continue
            command = command.replace("512", "2") + " --test_episodes 1 --steps 12 --workers 0"
        run(command)
    assert (workplace / "runs/walk/report.html").is_file() and (workplace / "rooms.json").is_file()


def test_the_page_on_your_data_runs(workplace: Path) -> None:
    names: dict[str, Any] = {}
    for example in blocks("docs/your_data.md", "python"):
        exec(compile(example, "your_data.md", "exec"), names)
    actions, log, episodes = names["actions"], names["log"], names["episodes"]
    assert torch.equal(actions[:, 1:], log[:, :-1]) and episodes.frame_shape == (3, 8, 8)
    assert episodes.has_heading
    *imported, first, walk = commands("docs/your_data.md")
    # the stages and the windows fit the episodes as they are
    small = "--steps 2 --evaluation.num_episodes 2 --evaluation.posterior_samples 2"
    for command in imported:
        if "--seed 1" in command:  # the same with another seed
            shutil.copytree("runs/rooms", "runs/again")
        else:
            run(command, small)
    assert (workplace / "compare.png").is_file() and len(list(workplace.glob("rooms/*.npz"))) == 1
    run(first, small)
    assert (workplace / "runs/video/evaluation.json").is_file()
    _, _, name, *words = shlex.split(walk)
    fields = dict(zip([word.removeprefix("--") for word in words[::2]], words[1::2], strict=True))
    assert fields.pop("out") == "runs/walks"
    walks = resolve(read_experiment(name), fields).build().data
    assert walks.sample(2, num_observed=150, num_predicted=150, seed=0, split="test").has_heading


def test_links_lead_somewhere() -> None:
    for page in ("README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))):
        folder = (ROOT / page).parent
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text(encoding="utf-8")):
            assert (folder / target).exists(), f"{page}: {target}"
