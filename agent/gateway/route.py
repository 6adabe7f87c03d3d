"""Which version answers a request.

The served model's name is an alias: the live adapter of the namespace, or the base. Where the
engine does not take that adapter, the base answers with the whole context in the prompt, as for a
request for `base`. An adapter's name is that version and no other. A
name that is none of these is an error with the names there are: an engine never sees it, and
nobody is answered by another version than they asked for.
"""

from dataclasses import dataclass, replace

from agent.engine.errors import EngineError
from agent.gateway.access.auth import unknown_namespace
from agent.gateway.errors import RequestError, engine_unreachable, short
from agent.gateway.state import GatewayState
from store.contexts import Context
from store.views import BASE, View

LIVE = "live"
"""The live adapter, the base where there is none, or the version that the request names."""
FALLBACK = "fallback"
"""The base, in place of a live adapter that the engine does not take."""
UNROUTED = "none"
"""Version and arm of a request that failed before it was known who answers."""


NO_CONTEXT = Context()
NO_CONTEXT_HASH = NO_CONTEXT.hash


@dataclass(frozen=True)
class Route:
    """The version that answers, and what has to stand in its prompt."""

    version: str
    """Name of an adapter, `base`, or `none`."""
    arm: str
    view: View

    def without_context(self) -> "Route":
        """The same version without a context, which keeps nothing out of the prompt then."""
        return replace(self, view=unrouted(self.view.namespace).view)


def unrouted(namespace: str) -> Route:
    """The route of a request until one is found."""
    view = View(
        namespace=namespace,
        revision=0,
        live=None,
        context=NO_CONTEXT,
        rendered=(),
        snapshot=NO_CONTEXT_HASH,
        registered=None,
        saved_tokens=0,
        saved_prompt_tokens=0,
        versions=(),
    )
    return Route(UNROUTED, UNROUTED, view)


async def choose_version(state: GatewayState, namespace: str, model: str) -> Route:
    """The route of a request for `model`; the aliases need no engine to be known.

    Raises:
        RequestError: There is no such namespace, or no such model in it (404); what there is
            cannot be said with the engine or the database away (503).
    """
    if model in (state.model_name, BASE):
        view = await state.views.view(namespace, None if model == state.model_name else BASE)
        arm = LIVE
        if view is not None and view.live in state.unloadable_adapters:
            arm, view = FALLBACK, await state.views.view(namespace, BASE)
        if view is None:
            raise unknown_namespace(namespace)
        return Route(view.live or BASE, arm, view)
    there = await model_names(state, namespace)
    view = await state.views.view(namespace, model) if model in there else None
    if view is None:
        raise unknown_model(model, there)
    return Route(model, LIVE, view)


async def model_names(state: GatewayState, namespace: str) -> list[str]:
    """What a client of the namespace may ask for: its loaded adapters beside the aliases.

    Raises:
        RequestError: There is no such namespace (404), the engine does not answer, or the database
            is away and nothing is known of the namespace (503).
    """
    view = await state.views.view(namespace)
    if view is None:
        raise unknown_namespace(namespace)
    try:
        loaded = set(await state.engine.models())
    except EngineError as error:
        raise engine_unreachable() from error
    aliases = dict.fromkeys((state.model_name, BASE))
    return [*aliases, *(name for name in view.versions if name in loaded)]


def unknown_model(model: str, there: list[str]) -> RequestError:
    """The error for a model that is not one of `there`."""
    return RequestError(
        404,
        f"There is no model {short(model)!r} here. Ask for one of: {', '.join(there)}.",
        code="model_not_found",
        param="model",
    )
