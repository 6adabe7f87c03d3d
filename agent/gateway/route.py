"""Choose the version that answers a request.

The served model's name is an alias for the namespace's live adapter, or for the base if it has
none. If the engine cannot load that adapter, the base answers with the whole context in the
prompt, as for a request for `base`. The name of an adapter selects exactly that version. Any other
name is an error that lists the available models: it never reaches the engine, and no request is
answered by a version other than the one it names.
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
"""The base, in place of a live adapter that the engine cannot load."""
UNROUTED = "none"
"""Version and arm of a request that failed before its version was chosen."""


NO_CONTEXT = Context()
NO_CONTEXT_HASH = NO_CONTEXT.hash


@dataclass(frozen=True)
class Route:
    """The version that answers, and the view that its prompt is composed from."""

    version: str
    """Name of an adapter, `base`, or `none`."""
    arm: str
    view: View

    def without_context(self) -> "Route":
        """Return the same version with an empty context, which leaves the prompt as sent."""
        return replace(self, view=unrouted(self.view.namespace).view)


def unrouted(namespace: str) -> Route:
    """Return the route of a request whose version is not chosen yet."""
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
    """Return the route of a request for `model`; only an adapter's name needs the engine.

    Raises:
        RequestError: The namespace, or the model in it, does not exist (404); the engine or the
            database is unavailable (503).
    """
    if model in (state.model_name, BASE):
        view = await state.views.view(namespace, None if model == state.model_name else BASE)
        arm = LIVE
        if view is not None and view.live in state.unavailable_adapters:
            arm, view = FALLBACK, await state.views.view(namespace, BASE)
        if view is None:
            raise unknown_namespace(namespace)
        return Route(view.live or BASE, arm, view)
    models = await model_names(state, namespace)
    view = await state.views.view(namespace, model) if model in models else None
    if view is None:
        raise unknown_model(model, models)
    return Route(model, LIVE, view)


async def model_names(state: GatewayState, namespace: str) -> list[str]:
    """Return the models of the namespace: the aliases and its loaded adapters.

    Raises:
        RequestError: The namespace does not exist (404); the engine is unavailable, or the
            database is and the namespace has not been read yet (503).
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


def unknown_model(model: str, models: list[str]) -> RequestError:
    """Return the error for a model that is not one of `models`."""
    return RequestError(
        404,
        f"Unknown model {short(model)!r}. Available: {', '.join(models)}.",
        code="model_not_found",
        param="model",
    )
