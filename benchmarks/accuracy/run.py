"""Accuracy with and without long range, and with invariant features, on the same data.

    python benchmarks/accuracy/run.py charged_dimer --data /path/to/data

trains every variant at every cutoff with every seed, each in a process and a directory of its own,
and rebuilds the table and the pictures after each. What is finished is kept; what was interrupted
goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml
from report import write_report
from systems import SYSTEMS, VARIANTS, configuration, write_parts
from worker import CONFIG, RESULT

HERE = Path(__file__).resolve().parent
_LINE_SECONDS = 30.0


@dataclass(frozen=True)
class Job:
    """One training."""

    system: str
    variant: str
    cutoff: float
    seed: int
    directory: Path

    @property
    def name(self) -> str:
        """For progress lines."""
        return f"{self.system} {self.variant} {self.cutoff:g} Å seed {self.seed}"

    @property
    def state(self) -> str:
        """``done``, ``begun`` or ``to do``."""
        if (self.directory / RESULT).is_file():
            return "done"
        return "begun" if (self.directory / "last.ckpt").is_file() else "to do"


def jobs_of(name: str, arguments: argparse.Namespace) -> list[Job]:
    """All trainings of a system; the first seed of everything comes first."""
    cutoffs = arguments.cutoffs or SYSTEMS[name].cutoffs
    return [
        Job(name, variant, cutoff, seed, arguments.output / name / f"{variant}_r{cutoff:g}_s{seed}")
        for seed in arguments.seeds
        for cutoff in cutoffs
        for variant in arguments.variants
    ]


def prepare(job: Job, arguments: argparse.Namespace) -> None:
    """Write the configuration of a job, or see that the one which is there is the same."""
    system = SYSTEMS[job.system]
    parts = write_parts(system, arguments.data, arguments.test, job.directory.parent / "data")
    limits = {"max_time": arguments.budget or system.budget, "max_epochs": 100_000}
    if arguments.epochs:
        limits = {"max_epochs": arguments.epochs}
    config = configuration(
        system, job.variant, job.cutoff, job.seed, parts, job.directory, limits, arguments.set
    )
    config["num_threads"] = arguments.threads
    path = job.directory / CONFIG
    if path.is_file():
        there = yaml.safe_load(path.read_text(encoding="utf-8"))
        if {**there, "num_threads": 0} != {**config, "num_threads": 0}:
            raise SystemExit(
                f"{job.directory} holds a run with other settings (see {CONFIG} there): choose "
                "another --output, or remove it"
            )
    job.directory.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


def run(job: Job, label: str, threads: int) -> int:
    """Train and judge in a process of its own, with a line now and then."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        environment[variable] = str(threads)
    command = [sys.executable, "-W", "ignore", str(HERE / "worker.py"), str(job.directory)]
    shown = 0.0
    with open(job.directory / "train.log", "a", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, encoding="utf-8", env=environment
        )
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            log.flush()
            of_interest = line.startswith(("epoch", "charges first"))
            if of_interest and time.monotonic() - shown > _LINE_SECONDS:
                shown = time.monotonic()
                print(f"{label}  {line.rstrip()}", flush=True)
        return process.wait()


def run_all(jobs: list[Job], arguments: argparse.Namespace) -> list[Job]:
    """Run what is not done, several at a time if so wanted; return what failed."""
    failed: list[Job] = []
    reports = threading.Lock()

    def one(numbered: tuple[int, Job]) -> None:
        number, job = numbered
        label = f"[{number}/{len(jobs)}] {job.name}"
        if job.state == "done":
            print(f"{label}  done before", flush=True)
            return
        status = run(job, label, arguments.threads)
        with reports:
            if status != 0:
                failed.append(job)
                print(f"{label}  FAILED ({status}), see {job.directory / 'train.log'}", flush=True)
                return
            print(f"{label}  done", flush=True)
            write_report(job.system, arguments.output / job.system)

    with ThreadPoolExecutor(max_workers=arguments.workers) as pool:
        list(pool.map(one, enumerate(jobs, start=1)))
    return failed


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("systems", nargs="+", choices=[*SYSTEMS, "all"], metavar="SYSTEM",
                        help=f"of {', '.join(SYSTEMS)}, or all")  # fmt: skip
    parser.add_argument("--data", type=Path, required=True, help="directory of the data files")
    parser.add_argument("--test", type=Path, metavar="FILE",
                        help="frames kept apart; otherwise some of the data are")  # fmt: skip
    parser.add_argument("--output", type=Path, default=HERE / "results", help="for the results")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--cutoffs", nargs="+", type=float, metavar="ANGSTROM")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budget", type=float, metavar="MINUTES", help="of every training")
    parser.add_argument("--epochs", type=int, help="of every training, instead of minutes")
    parser.add_argument("--threads", type=int, default=1, help="of every training")
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE",
                        help="settings that replace those of all variants")  # fmt: skip
    parser.add_argument("--jobs", choices=("run", "list", "report"), default="run",
                        help="list: say what would be done; report: tables only")  # fmt: skip
    arguments = parser.parse_args()
    names = list(SYSTEMS) if "all" in arguments.systems else arguments.systems
    if arguments.test is not None and len(names) > 1:
        parser.error("--test belongs to one system")
    jobs = [job for name in names for job in jobs_of(name, arguments)]
    if arguments.jobs == "list":
        for job in jobs:
            system = SYSTEMS[job.system]
            limit = f"{arguments.epochs} epochs" if arguments.epochs else (
                f"{arguments.budget or system.budget:g} min")  # fmt: skip
            reach = system.receptive_field(job.cutoff)
            print(f"{job.state:6}  {job.name:42}  {limit}, network sees {reach:g} Å")
        return 0
    failed: list[Job] = []
    if arguments.jobs == "run":
        for job in jobs:
            prepare(job, arguments)
        failed = run_all(jobs, arguments)
    for name in names:
        print(write_report(name, arguments.output / name))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
