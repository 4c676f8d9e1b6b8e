"""What the README and the docs show, made small."""

import re
import shlex
from pathlib import Path

from gtm_pyro.cli import main

ROOT = Path(__file__).resolve().parent.parent
TINY = (
    "--steps 4 --stages '[{steps: 4, batch_size: 8, num_observed: 24, num_predicted: 8}]' --evaluation.num_episodes 2 "
)
TINY += "--evaluation.num_observed 24 --evaluation.num_predicted 8 --evaluation.posterior_samples 2"


def blocks(path: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / path).read_text(encoding="utf-8"), re.DOTALL)


def commands(path: str) -> list[str]:
    lines = [line for block in blocks(path, "bash") for line in block.splitlines()]
    return [line.partition(" #")[0].rstrip() for line in lines if line.startswith("gtm-pyro ")]


def run(command: str, small: str = TINY) -> None:
    words = shlex.split(command)[1:]
    if words[0] == "train" and "--resume" not in words:
        words += shlex.split(small)
        if "--model.transition" not in words:  # whose starting values are shown beside it
            words += ["--initialisation", "null"]
        if words[1].startswith("labyrinth") and "--data" not in words:
            words += shlex.split("--data.num_episodes 4 --data.num_test_episodes 4 --data.num_steps 32")
    if "LabyrinthRooms" in words:
        words = ["30" if word == "300" else word for word in words]
        words += shlex.split("--data.num_test_episodes 2 --data.num_steps 54")
    if words[:2] == ["data", "import"]:
        words += shlex.split("--episodes 8 --steps 34")
    if words[0] == "diagnose" and "--checks" not in words:
        words += shlex.split("--checks khat --draws 100 --evaluation.num_episodes 2")
    if words[0] == "generate":
        words = ["50" if word in ("500", "10000") else word for word in words]
    if words[0] == "localise":
        words += shlex.split("--num_episodes 2 --memorised_steps 24 --observed_steps 8")
    assert main(words) in (0, None), command
