"""Faults to plant in a `Place`: files, environment, and commands that answer as they should not."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

from mlmodeldev.doctor.checks import disk, locks, machine, modes, tracking
from mlmodeldev.fetch.manifest import prepare
from mlmodeldev.slurm import preflight
from mlmodeldev.trial import software
from tests.doctor.conftest import Place

KEY = "not-a-key-of-any-server-" + "x" * 16


@dataclass(frozen=True)
class Fault:
    """What is planted, in which check it is seen, at which level, and a part of line and mend."""

    check: str
    plant: Callable[[Place], object]
    level: str
    what: str
    mend: str


def installed(name: str) -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        (place.folder / f"{name}.dist-info").mkdir()
        place.patch.syspath_prepend(str(place.folder))

    return plant


def having(*overrides: str) -> Callable[[Place], None]:
    return lambda place: place.overrides.extend(overrides)


def needs_what_is_not_there(place: Place) -> None:
    (place.folder / "pyproject.toml").write_text('[project]\ndependencies = ["no-such-thing>=1"]')
    place.patch.setattr(software, "LIBRARY", place.folder / "mlmodeldev")


def lock_of_others(place: Place) -> None:
    (place.folder / "requirements.lock").write_text("numpy==0.1\n")
    place.replaced["root"] = place.folder


def torch_says(text: str, gpus: str = "0") -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        place.patch.setattr("sys.executable", str(place.program("python", text)))
        place.patch.setenv("CUDA_VISIBLE_DEVICES", gpus)
        place.patch.setattr(machine, "TORCH_SECONDS", 5.0)

    return plant


def torch_hangs(place: Place) -> None:
    torch_says("exec sleep 60")(place)
    place.patch.setattr(machine, "TORCH_SECONDS", 0.2)


def runs_below_a_file(place: Place) -> None:
    (place.folder / "file").touch()
    place.overrides.append(f"artefacts.runs_dir={place.folder}/file/runs")


def room_left(little: int, nothing: int) -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        place.patch.setattr(disk, "LITTLE", little)
        place.patch.setattr(disk, "NOTHING", nothing)

    return plant


def few_inodes(place: Place) -> None:
    place.patch.setattr(disk, "FEW_FILES", 2**63)


def quota_of(*rows: str) -> Callable[[Place], None]:
    return lambda place: place.stubs(quota="cat <<'END'\n" + "\n".join(rows) + "\nEND\nexit 1")


def purged(place: Place, name: str = "scratch") -> None:
    file = place.folder / name / "data" / "birds" / "robin.png"
    file.parent.mkdir(parents=True)
    file.touch()
    os.utime(file, (time.time() - 85 * 86400,) * 2)
    place.patch.setenv("SCRATCH", str(place.folder / name))
    place.patch.setenv("MLMODELDEV_PURGE_DAYS", "90")
    place.overrides.append(f"artefacts.data_dir={place.folder}/{name}/data")


def purge_variable(place: Place) -> None:
    purged(place)
    place.patch.setenv("MLMODELDEV_PURGE_DAYS", "three months")


def flock_that(error: int | None) -> Callable[[Place], None]:
    def flock(number: int, how: int) -> None:
        if error:
            raise OSError(error, "refused")

    return lambda place: place.patch.setattr(fcntl, "flock", flock)


def locks_on_one_node(place: Place) -> None:
    mounts = place.folder / "mounts"
    mounts.write_text("server:/ / lustre rw,localflock,relatime 0 0\n")
    place.patch.setattr(preflight, "MOUNTS", mounts)


def clock_behind(seconds: float) -> Callable[[Place], None]:
    real = time.time

    class Late:
        time = staticmethod(lambda: real() - seconds)

    return lambda place: place.patch.setattr(locks, "time", Late)


def umask_of(mask: str, mode: int = 0o755) -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        (place.folder / "runs").mkdir()
        (place.folder / "runs").chmod(mode)
        status = place.folder / "status"
        status.write_text(f"Name:\tpython\nUmask:\t{mask}\n")
        place.patch.setattr(modes, "STATUS", status)

    return plant


def no_slurm(place: Place) -> None:
    place.patch.setenv("PATH", str(place.folder))
    place.overrides.append("cluster=generic")


def on_slurm(*overrides: str, **commands: str) -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        place.stubs(**commands)
        place.overrides += ["cluster=generic", *overrides]

    return plant


def open_netrc(place: Place) -> None:
    file = place.home / ".netrc"
    file.write_text(f"machine api.wandb.ai login user password {KEY}\n")
    file.chmod(0o644)


def named_netrc(place: Place) -> None:
    open_netrc(place)
    place.patch.setenv("NETRC", str(place.home / ".netrc"))


def key_in_environment(mode: str) -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        place.patch.setenv("WANDB_API_KEY", KEY)
        place.stubs()
        place.overrides += ["cluster=generic", f"logger.wandb.mode={mode}"]

    return plant


def nobody_listens(mode: str) -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        place.patch.setenv("WANDB_API_KEY", KEY)
        place.patch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        place.overrides.append(f"logger.wandb.mode={mode}")

    return plant


def no_tracker(place: Place) -> None:
    place.patch.setattr(tracking, "find_spec", lambda name: None)
    place.overrides.append("logger=mlflow")


def wants_a_gpu(*overrides: str) -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        torch_says(seen_by_torch(), gpus="")(place)
        place.overrides += overrides

    return plant


MANIFEST = """\
title: Birds
files:
  - urls: ["https://example.org/birds.csv"]
    bytes: 6
    sha256: "{digest}"
layout: [birds.csv]
"""


def birds(content: str | None) -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        folder, own = place.folder / "data" / "birds", place.folder / "manifests"
        folder.mkdir(parents=True)
        own.mkdir()
        right = hashlib.sha256(b"robin\n").hexdigest()
        text = MANIFEST.format(digest=right)
        (own / "birds.yaml").write_text(text)
        if content is not None:
            (folder / "birds.csv").write_text(content)
        place.patch.setenv("MLMODELDEV_MANIFESTS", str(own))

    return plant


def pictures_purged(place: Place) -> None:
    """The archive was unpacked, and scratch has lost one of its pictures since."""
    archive = place.folder / "birds.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("robin.png", "red")
    own = place.folder / "manifests"
    own.mkdir()
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    (own / "birds.yaml").write_text(
        f'files: [{{urls: ["{archive.as_uri()}"], sha256: "{digest}", unpack: pictures}}]\n'
        "layout: [pictures/robin.png]\n"
    )
    place.patch.setenv("MLMODELDEV_MANIFESTS", str(own))
    folder = prepare("birds", place.folder / "data", keep_archives=False)
    (folder / "pictures" / "robin.png").unlink()


def sweep_with(text: str) -> Callable[[Place], None]:
    return lambda place: place.sweep.write_text(
        place.sweep.read_text().replace("optimizer.lr:", text)
    )


def with_file(name: str, text: str = "", size: int = 0) -> Callable[[Place], None]:
    def plant(place: Place) -> None:
        root = place.folder / "project"
        root.mkdir()
        with (root / name).open("w") as file:
            file.write(text)
            file.truncate(max(size, len(text)))
        place.replaced["root"] = root
        place.stubs()
        place.overrides.append("cluster=generic")

    return plant


def seen_by_torch(**seen: object) -> str:
    shown = {"torch": "2.13.0", "cuda": None, "gpus": [], **seen}
    return f"echo 'driver is too old' >&2; echo '{json.dumps(shown)}'"
