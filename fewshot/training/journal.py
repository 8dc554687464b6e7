"""What a training run leaves behind while it goes: a checkpoint to go on from, a log of one JSON object a line."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewshot.errors import FormatError, OutputError
from fewshot.modelfile import read_model, write_model

EVERY = 20.0  # least seconds between two checkpoints


class Journal:
    """The checkpoint `OUT.checkpoint` and the log `OUT.jsonl` of the run that will write `OUT`.

    A run whose recipe and data are those of the checkpoint goes on from it; wall and CPU seconds add up over restarts.
    """

    def __init__(self, out: Path, about: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.checkpoint = out.with_name(out.name + ".checkpoint")
        self.log = out.with_name(out.name + ".jsonl")
        self.about = json.loads(json.dumps(about))
        self.step = 0
        self.tensors: dict[str, Tensor] = {}
        self.notes: dict[str, Any] = {}
        self._spent = (0.0, 0.0)  # wall and CPU seconds of earlier starts
        if fresh:
            self.checkpoint.unlink(missing_ok=True)
        if self.checkpoint.exists():
            self._resume()
        self._start = (time.perf_counter(), time.process_time())
        self._saved = self._start[0]
        self._keep_lines()

    def _resume(self) -> None:
        self.tensors, meta = read_model(self.checkpoint, torch.device("cpu"), "checkpoint")
        about, ours = meta.get("about"), self.about
        if not isinstance(about, dict):
            raise FormatError(f"{self.checkpoint} is damaged: it does not say of what run it is; pass --force")
        odd = sorted(name for name in about.keys() | ours.keys() if about.get(name) != ours.get(name))
        if odd:
            raise FormatError(
                f"{self.checkpoint} is of another run: {odd[0]} was {about.get(odd[0])!r}, now it is "
                f"{ours.get(odd[0])!r}; pass --force to start anew, or choose another --out"
            )
        self.step, self._spent, self.notes = meta["step"], tuple(meta["spent"]), meta["notes"]

    def _keep_lines(self) -> None:
        """Start the log with what the run is, or cut it back to the checkpoint's step."""
        lines = [json.dumps({"step": 0, **self.about})]
        if self.step and self.log.exists():
            old = [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            lines = [json.dumps(line) for line in old if line["step"] <= self.step]
        try:
            self.log.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {self.log}: {error.strerror or error}") from error

    def spent(self) -> tuple[float, float]:
        """Return wall and CPU seconds of the run, all starts together."""
        wall, cpu = time.perf_counter() - self._start[0], time.process_time() - self._start[1]
        return self._spent[0] + wall, self._spent[1] + cpu

    def write(self, step: int, **values: Any) -> dict[str, Any]:
        """Append a line to the log and return it."""
        wall, cpu = self.spent()
        line = {"step": step, **values, "wall_s": round(wall, 1), "cpu_s": round(cpu, 1)}
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return line

    def due(self) -> bool:
        """Whether the last checkpoint is old enough for another."""
        return time.perf_counter() - self._saved >= EVERY

    def save(self, step: int, tensors: Mapping[str, Tensor], **notes: Any) -> None:
        """Write a checkpoint in one step: a kill leaves the old one or the new one."""
        meta = {"about": self.about, "step": step, "spent": self.spent(), "notes": notes}
        write_model(self.checkpoint, tensors, meta, overwrite=True, kind="checkpoint")
        self._saved = time.perf_counter()

    def lines(self) -> list[dict[str, Any]]:
        """Return the log so far."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]

    def finish(self) -> None:
        """Drop the checkpoint: the run is over and its result is written."""
        self.checkpoint.unlink(missing_ok=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Name the tensors of an optimizer's state `optimizer.NUMBER.KEY`."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{i}.{key}": value for i, values in state.items() for key, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` named."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".")
            state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
