"""The flags of a component, rendered for the first node of a cluster."""

from bundler.cluster.plan import make_plan
from bundler.cluster.schema import Cluster
from bundler.cluster.settings import make_flags
from bundler.overlays.templating import compile_template
from bundler.render.context import make_context


def render_flags(cluster: Cluster, component: str) -> dict[str, str]:
    """Flag → its value, from values that need no state directory."""
    plan = make_plan(cluster)
    context = make_context(plan, plan.nodes[0], None)
    flags = make_flags(cluster, component, lambda text: compile_template(text).render(context))
    return dict(flag.removeprefix("--").split("=", 1) for flag in flags)
