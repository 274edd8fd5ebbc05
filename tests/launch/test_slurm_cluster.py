"""launch/slurm.sbatch on a real SLURM: a controller and a node of its own, both on this machine."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")
PATIENCE = 180.0  # seconds; a machine may compile for a minute
UNDER_WAY = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")
# No users to tell apart, and no control groups, which a container may lack. The node must have a
# name that resolves: the tasks of a job find one another by it.
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=all Nodes=localhost Default=YES
"""
# A model of which a step takes milliseconds. Steps enough that the first run is asked to leave.
TINY = (
    "--config=configs/vae.py",
    "--config.data.num_scenes=6",
    "--config.data.num_frames=5",
    "--config.data.height=16",
    "--config.data.width=16",
    "--config.data.context_views=2",
    "--config.data.target_views=1",
    "--config.data.gap_min=1",
    "--config.model.widths=(8,)",
    "--config.model.attention_levels=()",
    "--config.model.num_heads=1",
    "--config.model.cross_view=none",
    "--config.model.refine=0",
    "--config.training.batch_size=2",
    "--config.training.log_every=1",
    "--config.training.eval_every=0",
)


class Cluster:
    """A SLURM of one node, whose configuration and state lie in a folder."""

    def __init__(self, folder: pathlib.Path):
        with socket.socket() as a, socket.socket() as b:
            for free in (a, b):
                free.bind(("127.0.0.1", 0))
            ports = [free.getsockname()[1] for free in (a, b)]
        for name in ("state", "spool"):
            (folder / name).mkdir()
        conf = folder / "slurm.conf"
        values = {"host": socket.gethostname(), "ports": ports}
        conf.write_text(CONF.format(folder=folder, **values))
        # Tasks of a job outside of this one get their own settings, not those of the tests' SLURM.
        own = {key: x for key, x in os.environ.items() if not key.startswith("SLURM_")}
        cache = REPOSITORY / ".pytest_cache" / "jax"
        self.environment = own | {"SLURM_CONF": str(conf), "LGS_JAX_CACHE": str(cache)}
        self.folder, self.daemons = folder, []
        for command in (["slurmctld", "-D", "-c"], ["slurmd", "-D", "-N", "localhost"]):
            with (folder / f"{command[0]}.log").open("w") as log:
                self.daemons.append(
                    subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
                )

    def call(self, *command: str, check: bool = True) -> str:
        """What a program prints."""
        done = subprocess.run(
            command,
            env=self.environment | {"PYTHON": sys.executable},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0 or not check, done.stderr + self.logs()
        return done.stdout

    def submit(self, folder: pathlib.Path, *flags: str, options: tuple[str, ...] = ()) -> str:
        """The number of a new job that trains in a folder; its log is `log` there."""
        output = f"--output={folder}/log"
        script = ("launch/slurm.sbatch", *TINY, f"--workdir={folder}/run", *flags)
        return self.call("sbatch", "--parsable", output, *options, *script).strip()

    def job(self, number: str) -> dict[str, str]:
        """What the controller knows about a job."""
        text = self.call("scontrol", "--oneliner", "show", "job", number)
        return dict(field.split("=", 1) for field in text.split() if "=" in field)

    def wait(self, condition) -> None:
        """Waits for a condition; fails with the logs if it does not come to hold."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f"nothing happened in time: {self.logs()}")
            time.sleep(0.1)

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        logs = sorted(self.folder.glob("*.log"))
        return "".join(f"\n{log.name}: {log.read_text()[-2000:]}" for log in logs)

    def stop(self) -> None:
        """Ends all jobs, and then the daemons."""
        self.call("scancel", "--signal=KILL", "--full", "--user=root", check=False)
        self.call("scancel", "--user=root", check=False)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            daemon.wait(timeout=60)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no SLURM (Debian: apt-get install slurm-wlm): {', '.join(missing)} missing")
    if os.geteuid() != 0:
        pytest.skip("slurmd starts jobs for root alone")
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.wait(lambda: "State=IDLE" in cluster.call("scontrol", "show", "node", check=False))
        yield cluster
    finally:
        cluster.stop()


def steps(folder: pathlib.Path) -> int:
    """How many steps the run in a folder has logged."""
    path = folder / "run" / "metrics.jsonl"
    return path.read_text().count('"kind": "train"') if path.exists() else 0


def finished(folder: pathlib.Path) -> bool:
    return (folder / "run" / "results.json").exists()


def test_a_job_that_is_warned_saves_goes_back_into_the_queue_and_ends(cluster, tmp_path):
    flags = ("--config.training.num_steps=200", "--config.training.visualize=False")
    job = cluster.submit(tmp_path, *flags)
    cluster.wait(lambda: steps(tmp_path) >= 5)
    # As SLURM does before the time limit: to the tasks, not to the script.
    cluster.call("scancel", "--signal=TERM", job)
    cluster.wait(lambda: cluster.job(job)["JobState"] == "PENDING")
    assert cluster.job(job)["Restarts"] == "1"
    assert not finished(tmp_path)
    done = steps(tmp_path)
    # SLURM lets a job that comes back wait for two minutes; at once, its leave is still withdrawn.
    cluster.call("scontrol", "update", f"JobId={job}", "StartTime=now+3")
    cluster.wait(lambda: cluster.job(job)["JobState"] not in UNDER_WAY)
    log = (tmp_path / "log").read_text()
    assert cluster.job(job)["JobState"] == "COMPLETED", log
    assert "saved, not done: back into the queue (restart 1)" in log
    assert steps(tmp_path) == 200 > done  # none of them twice: it went on where it had left
    assert finished(tmp_path)


def test_a_job_that_is_cancelled_saves_and_stays_out(cluster, tmp_path):
    job = cluster.submit(tmp_path, "--config.training.num_steps=4000")
    cluster.wait(lambda: steps(tmp_path) >= 5)
    cluster.call("scancel", job)
    cluster.wait(lambda: cluster.job(job)["JobState"] == "CANCELLED")
    assert cluster.job(job)["Restarts"] == "0"
    cluster.wait(lambda: cluster.job(job)["ExitCode"] != "0:0")
    assert any((tmp_path / "run" / "checkpoints").iterdir())
    assert not finished(tmp_path)


def test_two_tasks_join(cluster, tmp_path):
    flags = ("--config.training.num_steps=4", "--config.mesh.data=2")
    job = cluster.submit(tmp_path, *flags, options=("--ntasks-per-node=2",))
    cluster.wait(lambda: cluster.job(job)["JobState"] not in UNDER_WAY)
    log = (tmp_path / "log").read_text()
    assert cluster.job(job)["JobState"] == "COMPLETED", log
    assert " --distributed" in log.splitlines()[0]
    assert steps(tmp_path) == 4
    assert finished(tmp_path)
