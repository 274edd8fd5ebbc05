"""launch/gke/submit.sh, the whole script, with stand-ins for kubectl and XPK."""

import os
import pathlib
import signal
import subprocess
import time

import pytest
import yaml

SCRIPT = "gke/submit.sh"
FOLDER = pathlib.Path(__file__).resolve().parents[2] / "launch" / "gke"
JOB = ["--name=rooms", "--image=registry/lgs_jax:tpu", "--type=v5e-16", "--workdir=gs://b/run"]
LOOK = "kubectl get jobset rooms -o jsonpath={.status.terminalState}"
FOLLOW = (
    "kubectl logs -f --tail=-1 -l jobset.sigs.k8s.io/jobset-name=rooms,"
    "batch.kubernetes.io/job-completion-index=0"
)
APPLY = f"kubectl apply -f {FOLDER / 'rbac.yaml'} -f -"


@pytest.fixture
def dry_run(programs):
    """A function that returns the manifest and the commands of a dry run."""
    return lambda verb, *arguments: _dry_run(programs.folder, verb, *arguments)


def _dry_run(programs, verb, *arguments):
    done = subprocess.run(
        ["bash", str(FOLDER / "submit.sh"), verb, "--dry-run", *arguments],
        env=os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout), [line.replace("\\", "") for line in done.stderr.split("\n")]


def pod_of(manifest):
    (replicated,) = manifest["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    return job, job["template"]["spec"]


@pytest.mark.parametrize(
    ("kind", "selector", "nodes", "devices"),
    [
        ("v5e-16", {"tpu-accelerator": "tpu-v5-lite-podslice", "tpu-topology": "4x4"}, 4, 4),
        (
            "v5litepod-256",
            {"tpu-accelerator": "tpu-v5-lite-podslice", "tpu-topology": "16x16"},
            64,
            4,
        ),
        ("v6e-4", {"tpu-accelerator": "tpu-v6e-slice", "tpu-topology": "2x2"}, 1, 4),
        ("v5p-64", {"tpu-accelerator": "tpu-v5p-slice", "tpu-topology": "2x4x4"}, 8, 4),
        ("h100-16", {"accelerator": "nvidia-h100-80gb"}, 2, 8),
        ("a100-40gb-8", {"accelerator": "nvidia-tesla-a100"}, 1, 8),
    ],
)
def test_the_nodes_of_a_type(dry_run, kind, selector, nodes, devices):
    manifest, _ = dry_run("submit", *JOB, f"--type={kind}")
    job, pod = pod_of(manifest)
    assert pod["nodeSelector"] == {f"cloud.google.com/gke-{k}": v for k, v in selector.items()}
    assert job["parallelism"] == job["completions"] == nodes
    (number,) = pod["containers"][0]["resources"]["limits"].values()
    assert number == devices
    if "tpu-topology" in selector:
        chips = 1
        for length in selector["tpu-topology"].split("x"):
            chips *= int(length)
        assert chips == nodes * devices


@pytest.mark.parametrize(("kind", "own"), [("v5e-16", "tpu.yaml"), ("h100-16", "gpu.yaml")])
def test_nothing_else_differs_from_the_manifest(dry_run, kind, own):
    """The manifests are for just these nodes; without name, image and arguments they are equal."""
    texts = ["widths=(8, 16)", 'name="a\\b": #c', "it's"]
    flags = [f"--config.{text}" for text in texts]
    manifest, _ = dry_run("submit", *JOB, f"--type={kind}", "--config=c.py", "--", *flags)
    wanted = yaml.safe_load((FOLDER / own).read_text())
    (container,) = pod_of(manifest)[1]["containers"]
    (other,) = pod_of(wanted)[1]["containers"]
    expected = ["--distributed", "--config=c.py", "--workdir=gs://b/run", *flags]
    assert container.pop("args") == expected
    assert container.pop("image") == "registry/lgs_jax:tpu"
    assert manifest["metadata"].pop("name") == "rooms"
    del other["args"], other["image"], wanted["metadata"]["name"]
    assert manifest == wanted


def test_a_dry_run_prints_manifest_and_commands_and_does_nothing(programs, dry_run):
    status, output = programs.run(SCRIPT, "run", *JOB, "--dry-run", "--spot")
    assert status == 0, output
    assert 'cloud.google.com/gke-spot: "true"' in output
    assert programs.calls == []
    manifest, commands = dry_run("run", *JOB, "--namespace=train", "--context=far")
    assert manifest["kind"] == "JobSet"
    own = "+ kubectl --context=far --namespace=train"
    assert commands[0] == f"{own} apply -f {FOLDER / 'rbac.yaml'} -f -"
    assert [command.split()[4] for command in commands[1:3]] == ["get", "logs"]
    _, commands = dry_run("delete", "--name=rooms")
    assert commands == ["+ kubectl delete jobset rooms", ""]
    assert programs.calls == []


def test_submits_follows_through_restarts_and_says_how_it_ended(programs, dry_run):
    programs.rules(
        ("kubectl apply*", "cat >manifest"),
        ("kubectl logs*", "echo is pending; exit 1"),
        ("kubectl logs*", "echo step 1"),
        ("kubectl get*", "true"),
        ("kubectl get*", "true"),
        ("kubectl get*", "echo Completed"),
    )
    status, output = programs.run(SCRIPT, "run", *JOB, "--poll=0")
    assert status == 0, output
    assert programs.calls == [APPLY, *[FOLLOW, LOOK] * 3]
    assert output.index("step 1") < output.index("rooms is done")
    manifest = yaml.safe_load((programs.folder / "manifest").read_text())
    assert manifest == dry_run("submit", *JOB)[0]
    programs.rules(("kubectl get*", "echo Failed"))
    status, output = programs.run(SCRIPT, "logs", "--name=rooms")
    assert status == 1
    assert "kubectl describe jobset rooms says why" in output


def test_what_cannot_be_submitted_is_not_followed(programs):
    programs.rules(("kubectl apply*", "exit 3"))
    status, _ = programs.run(SCRIPT, "run", *JOB)
    assert status == 3
    assert programs.calls == [APPLY]
    programs.rules(("kubectl get*", "echo no such thing >&2; exit 1"))
    status, output = programs.run(SCRIPT, "logs", "--name=rooms")
    assert status == 1
    assert "no such thing" in output


def test_ctrl_c_leaves_the_training_alone(programs):
    programs.rules(("kubectl logs*", "echo step 1; exec sleep 60"))
    process = programs.start(SCRIPT, "logs", "--name=rooms")
    assert process.stdout.readline() == "step 1\n"
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert "rooms goes on; launch/gke/submit.sh logs or delete --name=rooms" in output
    assert not any("delete" in call for call in programs.calls)


def test_values_come_from_the_environment_too(programs):
    variables = {"GKE_NAME": "rooms", "GKE_IMAGE": "other", "GKE_TYPE": "v5e-4"}
    variables |= {"GKE_WORKDIR": "gs://b/run", "GKE_CONFIG": "configs/diffusion.py"}
    programs.rules(("kubectl apply*", "cat >manifest"))
    status, output = programs.run(SCRIPT, "submit", "--image=image", **variables)
    assert status == 0, output
    job, pod = pod_of(yaml.safe_load((programs.folder / "manifest").read_text()))
    assert job["parallelism"] == 1
    (container,) = pod["containers"]
    assert container["image"] == "image"
    wanted = ["--distributed", "--config=configs/diffusion.py", "--workdir=gs://b/run"]
    assert container["args"] == wanted


def test_xpk_gets_the_same_job(programs):
    own = ["--xpk=cluster", "--zone=us-west4-a"]
    status, output = programs.run(SCRIPT, "submit", *JOB, *own, "--", "--config.widths=(8, 16)")
    assert status == 0, output
    status, output = programs.run(SCRIPT, "delete", "--name=rooms", *own)
    assert status == 0, output
    created, deleted = programs.calls
    assert created.startswith(
        "xpk workload create --cluster=cluster --zone=us-west4-a --workload=rooms "
        "--tpu-type=v5litepod-16 --docker-image=registry/lgs_jax:tpu "
    )
    assert created.endswith(
        "--command=python -m lgs_jax.main --distributed --config=configs/vae.py:realestate10k "
        r"--workdir=gs://b/run --config.widths=\(8\,\ 16\)"
    )
    assert deleted == "xpk workload delete --cluster=cluster --zone=us-west4-a --workload=rooms"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["start", *JOB], "unknown command start"),
        (["submit", *JOB, "--chips=4"], "unknown option --chips=4; flags of lgs_jax.main go after"),
        (["submit", *JOB, "--name=My_Run"], "--name='My_Run' must be small letters"),
        (["logs"], "--name='' must be"),
        (["submit", *JOB, "--image="], "needs --image"),
        (["submit", *JOB, "--workdir=/tmp/run"], "needs --workdir=gs://bucket/run"),
        (["submit", *JOB, "--type="], "needs --type, such as v5e-16"),
        (["submit", *JOB, "--type=v5e"], "must end in a number"),
        (["submit", *JOB, "--type=v5e-17"], "is no slice"),
        (["submit", *JOB, "--type=v4-8"], "is none of v5e-N"),
        (["submit", *JOB, "--type=h100-12"], "must be whole nodes of 8"),
        (["submit", *JOB, "--", "--workdir=gs://b/other"], "give --workdir before --"),
        (["submit", *JOB, "--", "--dry-run"], "give --dry-run before --"),
        (["submit", *JOB, "--xpk=cluster"], "needs --zone"),
        (["submit", *JOB, "--zone=us-west4-a"], "--zone is for --xpk"),
        (["submit", *JOB, "--type=h100-8", "--xpk=c", "--zone=z"], "--xpk is for TPUs"),
        (["logs", "--name=rooms", "--poll=soon"], "--poll=soon must be a number"),
    ],
)
def test_mistakes_are_found_before_anything_is_done(programs, arguments, message):
    status, output = programs.run(SCRIPT, *arguments)
    assert status == 2
    assert message in output
    assert programs.calls == []
