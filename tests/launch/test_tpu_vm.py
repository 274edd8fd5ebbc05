"""launch/tpu_vm.sh against a stand-in for gcloud: no TPU has ever been seen by it."""

import os
import re
import signal
import time

import pytest

SLICE = ("--name=rooms", "--zone=us-west4-a")
RUN = ("run", *SLICE, "--type=v5litepod-16", "--workdir=gs://bucket/runs/a", "--poll=0")
FLAGS = ("--", "--config=configs/vae.py:realestate10k", "--config.data.root=/a b")
TRAIN = "*lgs_jax.main --distributed*"
ABSENT = ("*describe*", "echo 'ERROR: NOT_FOUND: no such resource' >&2; false")


def state(name):
    return ("*describe*", f"echo {name}")


def verbs(programs):
    """The calls in a few words each."""
    names = {
        r"queued-resources (create|delete)": r"\1",
        r"(scp) ": r"\1",
        r"uv pip install": "install",
        r"lgs_jax.main --distributed": "train",
        r"pkill": "stop",
    }
    found = []
    for call in programs.calls:
        if "describe" not in call:
            pattern = next(pattern for pattern in names if re.search(pattern, call))
            found.append(re.search(pattern, call).expand(names[pattern]))
    return found


def test_queues_installs_trains_and_gives_back(programs):
    programs.rules(ABSENT, state("PROVISIONING"), state("ACTIVE"), (TRAIN, "echo finished"))
    status, output = programs.run("tpu_vm.sh", *RUN, "--spot", "--project=p", *FLAGS)
    assert status == 0, output
    assert verbs(programs) == ["create", "scp", "install", "train", "delete"]
    create, scp, install, train, delete = (x for x in programs.calls if "describe" not in x)
    assert "create rooms --zone=us-west4-a --project=p --node-id=rooms" in create
    assert "--accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite" in create
    assert create.endswith("--spot")
    assert "lgs_jax.tar.gz rooms:lgs_jax.tar.gz" in scp
    assert all("--worker=all" in call for call in (scp, install, train))
    assert "--python 3.12" in install
    assert '"jax[tpu]" -e ".[gcs,lpips]"' in install
    assert (
        "lgs_jax.main --distributed --workdir=gs://bucket/runs/a "
        r"--config=configs/vae.py:realestate10k --config.data.root=/a\ b" in train
    )
    assert delete.endswith("delete rooms --zone=us-west4-a --project=p --force --quiet")
    assert "rooms is PROVISIONING" in output
    assert (programs.folder / "rooms.log").read_text().endswith("finished\n")


def test_a_request_that_is_refused_ends_it(programs):
    programs.rules(ABSENT, ("*create*", "echo 'ERROR: quota exceeded' >&2; false"))
    status, output = programs.run("tpu_vm.sh", *RUN, *FLAGS)
    assert status == 1
    assert "quota exceeded" in output
    assert verbs(programs) == ["create"]


def test_another_error_than_absence_is_not_taken_for_absence(programs):
    programs.rules(("*describe*", "echo 'ERROR: you are not logged in' >&2; false"))
    status, output = programs.run("tpu_vm.sh", *RUN, *FLAGS)
    assert status != 0
    assert "not logged in" in output
    assert verbs(programs) == []


def test_a_slice_that_is_taken_away_is_asked_for_again(programs):
    programs.rules(
        ABSENT,
        state("ACTIVE"),
        (TRAIN, "echo 'connection closed' >&2; (exit 255)"),
        state("SUSPENDED"),  # why did the training end?
        state("SUSPENDED"),
        ABSENT,
        state("ACTIVE"),
    )
    status, output = programs.run("tpu_vm.sh", *RUN, *FLAGS)
    assert status == 0, output
    once = ["create", "scp", "install", "train"]
    assert verbs(programs) == [*once, "delete", *once, "delete"]
    assert "rooms is SUSPENDED: the slice was taken away" in output
    trainings = [call for call in programs.calls if "--distributed" in call]
    assert trainings[0] == trainings[1]  # the same command continues


def test_a_training_that_saved_is_continued_as_often_as_it_takes(programs):
    """gcloud ends with 1 when it spoke to several workers; what they print tells why."""
    saved = (TRAIN, "echo 'lgs_jax ended with status 75'; false")
    programs.rules(*[state("ACTIVE")] * 5, saved, saved)
    status, output = programs.run("tpu_vm.sh", *RUN, "--restarts=0", *FLAGS)
    assert status == 0, output
    assert output.count("asked to stop and has saved") == 2
    assert verbs(programs).count("train") == 3
    assert "create" not in verbs(programs)


def test_an_error_is_tried_again_a_few_times_only(programs):
    wrong = (TRAIN, "echo 'lgs_jax ended with status 1'; (exit 1)")
    programs.rules(*[state("ACTIVE")] * 4, wrong, wrong)
    status, output = programs.run("tpu_vm.sh", *RUN, "--restarts=1", *FLAGS)
    assert status == 1
    assert "status 1 on a slice that is ACTIVE, after 1 restarts; see rooms.log" in output
    assert verbs(programs) == ["scp", "install", "train"] * 2 + ["delete"]


LOST = ("*describe*", "echo 'ERROR: no route to host' >&2; false")


def test_a_question_without_an_answer_is_asked_again(programs):
    broken = (TRAIN, "echo 'connection closed' >&2; (exit 255)")
    active = state("ACTIVE")
    programs.rules(ABSENT, *[LOST] * 3, active, *[LOST] * 3, active, active, broken)
    status, output = programs.run("tpu_vm.sh", *RUN, *FLAGS)
    assert status == 0, output
    once = ["scp", "install", "train"]
    assert verbs(programs) == ["create", *once, *once, "delete"]
    assert output.count("cannot be found out; next try in 0 seconds") == 6


def test_a_slice_that_may_still_train_is_not_deleted(programs):
    programs.rules(ABSENT, state("ACTIVE"), (TRAIN, "(exit 255)"), *[LOST] * 20)
    status, output = programs.run("tpu_vm.sh", *RUN, "--project=p", *FLAGS)
    assert status == 1, output
    assert verbs(programs) == ["create", "scp", "install", "train"]
    where = "--name=rooms --zone=us-west4-a --project=p"
    assert f"rooms may still train; look with launch/tpu_vm.sh status {where}" in output
    assert f"kept: rooms is charged until launch/tpu_vm.sh delete {where}" in output


def test_a_failed_copy_is_not_followed_by_an_installation(programs):
    programs.rules(state("ACTIVE"), ("*scp*", "false"), state("ACTIVE"))
    status, _ = programs.run("tpu_vm.sh", *RUN, "--restarts=0", *FLAGS)
    assert status == 1
    assert verbs(programs) == ["scp", "delete"]


@pytest.mark.parametrize(("keep", "last"), [((), "delete"), (("--keep",), "stop")])
def test_an_interrupt_saves_and_gives_the_slice_back(programs, keep, last):
    programs.rules(state("ACTIVE"), (TRAIN, "echo step 1; exec sleep 60"))
    process = programs.start("tpu_vm.sh", *RUN, *keep, *FLAGS)
    end = time.monotonic() + 60
    while not any("--distributed" in call for call in programs.calls):
        assert time.monotonic() < end
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert verbs(programs)[-2:] == (["stop", "delete"] if last == "delete" else ["train", "stop"])
    assert "asking the training to save" in output
    assert ("kept: rooms is charged until" in output) == bool(keep)


def test_a_dry_run_shows_all_and_touches_nothing(programs):
    before = set(programs.folder.iterdir())
    status, output = programs.run("tpu_vm.sh", *RUN, "--dry-run", *FLAGS)
    assert status == 0, output
    assert programs.calls == []
    assert set(programs.folder.iterdir()) == before
    lines = output.splitlines()
    starts = [
        "+ gcloud compute tpus queued-resources create rooms",
        "+ tar -czf lgs_jax.tar.gz",
        "+ gcloud compute tpus tpu-vm scp lgs_jax.tar.gz rooms:lgs_jax.tar.gz",
        "+ gcloud compute tpus tpu-vm ssh rooms --zone=us-west4-a --worker=all",
        "+ gcloud compute tpus tpu-vm ssh rooms --zone=us-west4-a --worker=all",
        "+ gcloud compute tpus queued-resources delete rooms",
    ]
    assert len(lines) == len(starts)
    assert all(line.startswith(start) for line, start in zip(lines, starts))


@pytest.mark.parametrize(
    ("clone", "expected"),
    [
        ("https://example.org/a/b.git", "clone --quiet https://example.org/a/b.git ~/lgs_jax; git"),
        ("https://example.org/a/b@v1", "clone --quiet https://example.org/a/b ~/lgs_jax; git"),
        ("git@example.org:a/b.git@main", "clone --quiet git@example.org:a/b.git ~/lgs_jax; git"),
    ],
)
def test_a_repository_can_be_cloned_instead(programs, clone, expected):
    status, _ = programs.run("tpu_vm.sh", "install", *SLICE, f"--clone={clone}")
    assert status == 0
    (call,) = programs.calls
    assert expected in call
    reference = clone.rpartition("@")[2] if clone.endswith(("v1", "main")) else "HEAD"
    assert f"checkout --quiet {reference};" in call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fly", *SLICE), "unknown command fly"),
        (("run", *SLICE), "run needs --type"),
        (("train", *SLICE), "train needs --workdir=gs://"),
        (("train", *SLICE, "--workdir=/tmp/a"), "train needs --workdir=gs://"),
        (("train", *SLICE, "--workdir=gs://b/a", "--", "--workdir=c"), "give --workdir before --"),
        (("delete", "--name=rooms"), "delete needs --name and --zone"),
        (("delete", *SLICE, "--config=a"), "flags of lgs_jax.main go after --"),
        ((*RUN, "--restarts=many"), "are numbers"),
    ],
)
def test_bad_arguments_are_named(programs, arguments, message):
    status, output = programs.run("tpu_vm.sh", *arguments)
    assert status == 2
    assert message in output
    assert programs.calls == []


def test_explains_itself(programs):
    status, output = programs.run("tpu_vm.sh", "--help")
    assert status == 0
    assert "give the slice back" in output
    assert "See launch/README.md." in output
    assert "set -euo" not in output
