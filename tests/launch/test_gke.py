"""launch/gke: the manifests, by hand and against the published schemas of JobSet and Kubernetes."""

import copy
import os
import pathlib

import pytest
import yaml

from lgs_jax.training import preemption

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "launch" / "gke"
JOBS = ("tpu.yaml", "gpu.yaml")


@pytest.fixture(params=JOBS)
def jobset(request):
    return yaml.safe_load((FOLDER / request.param).read_text())


@pytest.fixture
def job(jobset):
    (replicated,) = jobset["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


@pytest.fixture
def pod(job):
    return job["template"]["spec"]


def test_is_a_jobset_that_comes_back_after_a_preemption(jobset, job, pod):
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 3
    # Status 75 and disruptions fail the job for the reason that is free of charge.
    (rule,) = policy["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    exits, disruption = job["podFailurePolicy"]["rules"]
    assert [exits["action"], disruption["action"]] == ["FailJob"] * 2
    assert exits["onExitCodes"]["values"] == [preemption.EXIT_STATUS]
    assert exits["onExitCodes"]["containerName"] == pod["containers"][0]["name"]
    assert disruption["onPodConditions"] == [{"type": "DisruptionTarget"}]
    # Kubernetes refuses a podFailurePolicy with another restart policy.
    assert pod["restartPolicy"] == "Never"
    assert job["backoffLimit"] == 0


def test_gives_every_process_a_number_and_time_to_save(job, pod):
    assert job["completionMode"] == "Indexed"
    assert job["parallelism"] == job["completions"] > 1
    assert pod["terminationGracePeriodSeconds"] >= 60


def test_trains_from_and_into_the_object_store(pod):
    (container,) = pod["containers"]
    assert "command" not in container  # the image's entry point gets the signals
    assert "--distributed" in container["args"]
    flags = dict(arg.split("=", 1) for arg in container["args"] if "=" in arg)
    assert flags["--workdir"].startswith("gs://")
    assert flags["--config.data.root"].startswith("gs://")
    assert (FOLDER.parents[1] / flags["--config"].split(":")[0]).exists()


def test_a_host_of_the_slice_has_its_share_of_the_chips():
    jobset = yaml.safe_load((FOLDER / "tpu.yaml").read_text())
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    rows, columns = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    resources = pod["containers"][0]["resources"]
    assert resources["requests"] == resources["limits"]
    assert resources["limits"]["google.com/tpu"] * job["parallelism"] == int(rows) * int(columns)


def test_the_pods_may_read_what_jax_asks_for(pod):
    account, role, binding = yaml.safe_load_all((FOLDER / "rbac.yaml").read_text())
    name = pod["serviceAccountName"]
    assert account["metadata"]["name"] == binding["subjects"][0]["name"] == name
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    allowed = {resource for rule in role["rules"] for resource in rule["resources"]}
    assert allowed == {"pods", "services", "jobs"}
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"get", "list"}


def test_the_image_starts_the_training_itself():
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    assert 'ENTRYPOINT ["python", "-m", "lgs_jax.main"]' in lines
    for line in lines:
        if line.startswith("COPY"):
            for source in line.split()[1:-1]:
                assert (FOLDER.parents[1] / source).exists(), source


def read_back(models, manifest):
    """A manifest as the client generated from JobSet's API reads and writes it."""
    return models.JobsetV1alpha2JobSet.from_dict(copy.deepcopy(manifest)).to_dict()


def lost(before, after, path=""):
    """Where values are gone or others; what was added, such as defaults, does not count."""
    if isinstance(before, dict) and isinstance(after, dict):
        pairs = [(f"{path}.{key}", value, after.get(key)) for key, value in before.items()]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = [(f"{path}[{i}]", *both) for i, both in enumerate(zip(before, after, strict=True))]
    else:
        return [] if before == after else [path]
    return [place for where, old, new in pairs for place in lost(old, new, where)]


def test_the_client_of_jobset_knows_every_key(jobset, job, pod):
    models = pytest.importorskip("kubeflow_trainer_api.models")
    assert lost(jobset, read_back(models, jobset)) == []
    pod["restartPolicyy"] = "Never"
    (place,) = lost(jobset, read_back(models, jobset))
    assert place.endswith("template.spec.template.spec.restartPolicyy")
    job["backoffLimit"] = "none"
    with pytest.raises(ValueError, match="backoffLimit"):
        read_back(models, jobset)


def test_the_published_schemas_of_kubernetes_accept_the_roles():
    schemas = pytest.importorskip("kubernetes_validate")
    for manifest in yaml.safe_load_all((FOLDER / "rbac.yaml").read_text()):
        schemas.validate(manifest, schemas.latest_version(), strict=True)
    manifest["subjectss"] = []
    with pytest.raises(schemas.ValidationError, match="subjectss"):
        schemas.validate(manifest, schemas.latest_version(), strict=True)


def refuse_unknown_keys(schema):
    """The schema of a server that refuses misspelt keys, as `kubectl --validate=strict` does."""
    if isinstance(schema, dict):
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema["additionalProperties"] = False
        for value in schema.values():
            refuse_unknown_keys(value)
    elif isinstance(schema, list):
        for value in schema:
            refuse_unknown_keys(value)


def test_the_published_schema_accepts_it(jobset):
    """The schema (800 kB) is config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml of JobSet."""
    path = os.environ.get("LGS_JAX_JOBSET_CRD")
    if not path:
        pytest.skip("LGS_JAX_JOBSET_CRD does not name the CustomResourceDefinition of JobSet")
    jsonschema = pytest.importorskip("jsonschema")
    definition = yaml.load(pathlib.Path(path).read_text(), Loader=yaml.CSafeLoader)
    (version,) = [v for v in definition["spec"]["versions"] if v["name"] == "v1alpha2"]
    schema = version["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = {"type": "object"}
    refuse_unknown_keys(schema["properties"]["spec"])
    jsonschema.validate(jobset, schema)
    jobset["spec"]["failurePolicy"]["maxRestart"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxRestart"):
        jsonschema.validate(jobset, schema)
