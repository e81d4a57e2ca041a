"""Hooks of Helm charts: objects that run before or after an installation or an upgrade.

Source: https://helm.sh/docs/topics/charts_hooks. Objects become hooks by their annotations, also in
manifests that somebody made with `helm template`.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from bundler.cluster.addons.kinds import PARTS
from bundler.cluster.addons.objects import Hook, Object

HOOK = "helm.sh/hook"
WEIGHT = "helm.sh/hook-weight"
POLICY = "helm.sh/hook-delete-policy"
RESOURCE_POLICY = "helm.sh/resource-policy"
KEEP = "keep"

RUN = ("pre-install", "post-install", "pre-upgrade", "post-upgrade")
"""Events whose hooks kube-addons.service runs."""
LEFT_OUT = ("test", "test-success", "test-failure")
"""Events whose hooks are left out: nothing runs tests."""
REFUSED = ("pre-delete", "post-delete", "pre-rollback", "post-rollback")
"""Events that bundler does not have: it deletes objects, and goes back by applying former ones."""
EVENTS = (*RUN, *LEFT_OUT, *REFUSED)

BEFORE_CREATION, SUCCEEDED, FAILED = "before-hook-creation", "hook-succeeded", "hook-failed"
POLICIES = (BEFORE_CREATION, SUCCEEDED, FAILED)
WAITED_FOR = frozenset(("Job", "Pod"))


def sort_out_hooks(
    objects: Sequence[Object], not_needed: Collection[tuple[str, str]]
) -> tuple[tuple[Object, ...], tuple[tuple[str, str, bool], ...]]:
    """The objects that are carried, and add-on, text and whether it is an error of each problem.

    Hooks that are left out are not carried, and images in them neither. `not_needed` are the titles
    of hooks that the user does without, each with its add-on.
    """
    carried = []
    problems: list[tuple[str, str, bool]] = []
    for each in objects:
        if HOOK not in _list_annotations(each):
            carried.append(each)
            continue
        own, found = _judge(each, (each.addon, each.title) in not_needed)
        problems += ((each.addon, f"{each.describe()}: {text}", wrong) for text, wrong in found)
        if own:
            carried.append(own)
    titles = {(each.addon, each.title) for each in objects}
    problems += (
        (addon, f"hooks_not_needed: {title}: there is no such hook: remove it", False)
        for addon, title in sorted(set(not_needed) - titles)
    )
    return tuple(carried), tuple(problems)


def _judge(each: Object, is_acknowledged: bool) -> tuple[Object | None, list[tuple[str, bool]]]:
    """The object with the events that run, None without any, and its problems."""
    annotations = _list_annotations(each)
    events = _split(annotations[HOOK])
    found: list[tuple[str, bool]] = []
    if unknown := [event for event in events if event not in EVENTS]:
        text = f"unknown hook {', '.join(unknown)}; known: {', '.join(EVENTS)}"
        found.append((text, True))
    if (refused := [event for event in events if event in REFUSED]) and not is_acknowledged:
        text = (
            f"bundler does not run {' and '.join(refused)} hooks: turn it off with a value of the"
            f" chart, or confirm that you do without it with hooks_not_needed: [{each.title}]"
        )
        found.append((text, True))
    run = tuple(event for event in RUN if event in events)
    if any(event in LEFT_OUT for event in events) and not run:
        found.append(("it is a test, and is left out", False))
    try:
        int(annotations.get(WEIGHT, "0"))
    except ValueError:
        found.append((f"{WEIGHT} must be a whole number in quotes", True))
    policies = _split(annotations.get(POLICY, BEFORE_CREATION))
    if wrong := [policy for policy in policies if policy not in POLICIES]:
        found.append((f"{POLICY} is {', '.join(wrong)}; known: {', '.join(POLICIES)}", True))
    if any(is_error for _, is_error in found) or not run:
        return None, found
    hook = Hook(
        events=run,
        weight=int(annotations.get(WEIGHT, "0")),
        is_kept=BEFORE_CREATION not in policies and each.kind not in WAITED_FOR,
        ends=SUCCEEDED in policies,
    )
    return replace(each, hook=hook), found


def sort_hooks(objects: Sequence[Object]) -> Iterator[Object]:
    """Yield the hooks in the order in which they run: by weight, then as objects are applied."""

    def rank(each: Object) -> tuple[int, int, str, str]:
        weight = each.hook.weight if each.hook else 0
        return weight, _rank_kind(each.kind), each.namespace, each.name

    yield from sorted((each for each in objects if each.hook), key=rank)


def _rank_kind(kind: str) -> int:
    ranked = [kind for kinds in PARTS.values() for kind in kinds]
    others = len(ranked)
    if kind in WAITED_FOR:
        return others + 1
    return ranked.index(kind) if kind in ranked else others


def stays(each: Object) -> bool:
    """Whether the chart wants an object to stay when it leaves the add-on."""
    return _list_annotations(each).get(RESOURCE_POLICY) == KEEP


def _list_annotations(each: Object) -> dict[str, str]:
    found = each.data["metadata"].get("annotations")
    return {key: str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _split(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
