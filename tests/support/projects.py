"""A project made from a cluster that is not in a file, and its plan with pod subnets."""

from collections.abc import Iterator
from contextlib import contextmanager

from bundler.cluster.plan import ClusterPlan, assign_pod_subnets, make_plan
from bundler.cluster.schema import Cluster
from bundler.pipeline import open_secrets
from bundler.project import Inputs, Project
from bundler.render.state_values import Secrets


def make_project(cluster: Cluster, inputs: Inputs) -> Project:
    """A project without a lock."""
    return Project(inputs=inputs, cluster=cluster, plan=make_plan(cluster), lock=None, digests={})


@contextmanager
def open_plan(cluster: Cluster, inputs: Inputs) -> Iterator[tuple[ClusterPlan, Secrets]]:
    """The plan as it is rendered, and the secrets from the state directory."""
    project = make_project(cluster, inputs)
    with open_secrets(project, create=True) as secrets:
        yield assign_pod_subnets(project.plan, secrets.pod_subnets), secrets
