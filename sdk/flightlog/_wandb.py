"""Arguments of W&B's `init()` that programs bring along: which are heard, which not."""

from collections.abc import Collection, Mapping
from typing import Any

from flightlog._config import as_config
from flightlog._say import say_once
from flightlog.errors import UsageError

__all__ = ("take_wandb_arguments",)

_WITHOUT_MEANING = (
    "anonymous",
    "dir",
    "force",
    "monitor_gym",
    "settings",
    "sync_tensorboard",
    "tensorboard",
)
_FILTERS = ("config_exclude_keys", "config_include_keys")
_SAVE_CODE = "save_code"  # Another word for `snapshot_code`.
_RUNICORNS = {"alias": "name", "run_id": "id", "storage": "home"}  # What it says: ours.
_NOT_SUPPORTED = ("fork_from", "resume_from")


def take_wandb_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `init()` without those that only W&B has.

    What has no meaning here is told once in a process, if it is given at all.

    Raises:
        TypeError: A name is neither ours nor W&B's, or a list of keys is none.
        UsageError: What is asked for cannot be done.
    """
    given: dict[str, Any] = arguments.pop("wandb_arguments")
    known = (*_WITHOUT_MEANING, *_FILTERS, *_NOT_SUPPORTED, _SAVE_CODE)
    for name, value in given.items():
        if name not in known:
            import difflib  # Late: `import flightlog` has to be light.

            near = difflib.get_close_matches(name, (*arguments, *known), 1)
            near = [_RUNICORNS[name]] if name in _RUNICORNS else near
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"init() got an unexpected argument {name!r}{hint}")
        if name in _NOT_SUPPORTED and value is not None:
            raise UsageError(
                f"init({name}=…) is not supported: a run goes on with resume=…, and "
                "rows may have any step"
            )
    ignored = [n for n in _WITHOUT_MEANING if given.get(n) not in (None, False)]
    if ignored:
        names = ", ".join(ignored)
        say_once(f"init() has no use for these arguments of wandb.init: {names}")
    save_code = given.get(_SAVE_CODE)
    if not isinstance(save_code, bool | None):
        raise TypeError(f"{_SAVE_CODE} must be a bool or None, not {save_code!r}")
    if save_code:
        arguments["snapshot_code"] = True
    return arguments | {"config": _filtered(arguments["config"], given)}


def _filtered(config: Any, given: Mapping[str, Any]) -> Any:
    """Return the config with the keys that W&B's two arguments leave of it."""
    exclude, include = (given.get(name) for name in _FILTERS)
    if exclude and include:
        raise UsageError("give config_exclude_keys or config_include_keys, not both")
    keys = exclude or include
    if not keys or config is None:
        return config
    if isinstance(keys, str) or not isinstance(keys, Collection):
        raise TypeError("config_exclude_keys and config_include_keys are lists of str")
    values = as_config(config)
    return {key: values[key] for key in values if (key in keys) == bool(include)}
