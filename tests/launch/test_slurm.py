"""launch/slurm.sbatch against stand-ins for srun and scontrol."""

import os
import signal
import time

JOB = {"SLURM_JOB_ID": "7", "PYTHON": "python"}
FLAGS = ("--config=configs/vae.py:small", "--workdir=/shared/a b")


def start_here(programs):
    """Where the job was submitted: the root of a repository."""
    (programs.folder / "lgs_jax").mkdir()
    return JOB | {"SLURM_SUBMIT_DIR": str(programs.folder)}


def test_one_task_trains_alone_and_several_join(programs):
    environment = start_here(programs)
    for tasks in ("1", "16"):
        status, _ = programs.run("slurm.sbatch", *FLAGS, **environment, SLURM_NTASKS=tasks)
        assert status == 0
    command = "srun --kill-on-bad-exit=1 python -m lgs_jax.main " + " ".join(FLAGS)
    assert programs.calls == [command, f"{command} --distributed"]


def test_saved_and_not_done_goes_back_into_the_queue(programs):
    programs.rules(("srun*", "(exit 75)"))
    status, output = programs.run("slurm.sbatch", *FLAGS, **start_here(programs))
    assert status == 75
    assert programs.calls[1:] == ["scontrol requeue 7"]
    assert "back into the queue (restart 1)" in output


def test_an_error_does_not(programs):
    programs.rules(("srun*", "(exit 1)"))
    status, _ = programs.run("slurm.sbatch", *FLAGS, **start_here(programs))
    assert status == 1
    assert len(programs.calls) == 1


def test_a_cancelled_job_does_not_either(programs):
    """SLURM signals this script too when it has decided what becomes of the job."""
    programs.rules(("srun*", "sleep 2; (exit 75)"))
    process = programs.start("slurm.sbatch", *FLAGS, **start_here(programs))
    end = time.monotonic() + 60
    while not programs.calls:
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert len(programs.calls) == 1


def test_a_dry_run_needs_no_slurm_and_starts_nothing(programs):
    status, output = programs.run("slurm.sbatch", "--dry-run", *FLAGS, PYTHON="python")
    assert status == 0, output
    assert programs.calls == []
    lines = output.splitlines()
    assert lines[0].endswith(
        r"-m lgs_jax.main --config=configs/vae.py:small --workdir=/shared/a\ b"
    )
    for option in ("--requeue", "--signal=TERM@300", "--open-mode=append", "--nodes=1"):
        assert f"  sbatch: {option}" in lines


def test_says_when_it_is_started_in_the_wrong_way(programs):
    status, output = programs.run("slurm.sbatch", *FLAGS)
    assert status == 2
    assert "this is no SLURM job" in output
    environment = JOB | {"SLURM_SUBMIT_DIR": str(programs.folder)}
    status, output = programs.run("slurm.sbatch", *FLAGS, **environment)
    assert status == 2
    assert "call sbatch in the root of the repository" in output
    assert programs.calls == []
