"""Counting systems by name. A system is one file with a decorator; training, loading and reproduction ask here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import UserError
from .counter import CrowdCounter
from .hub import find_checkpoint, read_config

Model = TypeVar("Model", bound=type[CrowdCounter])

_systems: dict[str, System] = {}


@dataclass(frozen=True)
class System:
    """A way to train a counter.

    ``stages`` has one entry per training stage: the constructor's arguments that the system fixes there. The labels of
    stage I are the data sets, those of stage II the clusters of stage I's attention.
    """

    name: str
    about: str
    model: type[CrowdCounter]
    stages: tuple[Mapping[str, Any], ...]

    @property
    def two_stage(self) -> bool:
        """Whether it clusters stage I's attention and trains a stage II."""
        return len(self.stages) == 2

    def create(self, stage: int = 1, **settings: Any) -> CrowdCounter:
        """The untrained network of a stage.

        Args:
            stage: 1 or 2.
            settings: constructor arguments of any system; those that this one does not have are left out, those that
                it fixes are its own.

        Raises:
            TypeError: a setting that no system has.
            ValueError, UserError: see the constructor.
        """
        known = {name for system in _systems.values() for name in system.parameters}
        if unknown := sorted(settings.keys() - known):
            raise TypeError(f"create: no system takes {', '.join(unknown)}")
        own = {name: value for name, value in settings.items() if name in self.parameters}
        return self.model(**own | dict(self.stages[stage - 1]))

    @property
    def parameters(self) -> list[str]:
        """Names of the constructor's arguments."""
        return [name for name in self.model._hub_mixin_init_parameters if name != "self"]


def register(name: str, about: str, *stages: Mapping[str, Any]) -> Callable[[Model], Model]:
    """A class decorator that enters a system; several may stand on one class.

    Args:
        name: as in ``--system`` and config.json; about: one line, shown in help texts.
        stages: per stage the arguments that the system fixes, see `System`; by default one stage that fixes none.
    """

    def enter(model: Model) -> Model:
        if name in _systems:
            raise ValueError(f"system {name} is registered twice: {_systems[name].model.__name__}, {model.__name__}")
        _systems[name] = System(name, about, model, stages or ({},))
        model.systems = (*vars(model).get("systems", ()), name)
        return model

    return enter


def list_systems() -> list[str]:
    """Names of all counting systems."""
    return list(_systems)


def get(name: str) -> System:
    """The system of a name. Raises `UserError` for an unknown one."""
    if name not in _systems:
        raise UserError(f"system {name}: unknown; {', '.join(_systems)} are possible")
    return _systems[name]


def create(name: str, stage: int = 1, **settings: Any) -> CrowdCounter:
    """The untrained network of a system's stage: ``get(name).create(stage, ...)``."""
    return get(name).create(stage, **settings)


def load_model(source: str | Path | None = None, *, revision: str | None = None, **changes: Any) -> CrowdCounter:
    """Load any saved counter, in evaluation mode.

    Args:
        source: None or ``"starter"`` is the packaged model; a model's folder; a training run's folder; or ``OWNER/NAME``
            on the hub. See `hub.find_checkpoint`.
        revision: branch, tag or commit on the hub.
        changes: constructor arguments in place of the saved ones.

    Raises:
        UserError: see `hub.SavedNetwork.from_pretrained`; a system that is not registered.
    """
    folder = find_checkpoint(source, revision)
    config = read_config(folder)
    # Folders from before config.json named the system tell it by their keys.
    name = config.get("system", "dkpnet" if "attention" in config else "mb")
    if not isinstance(name, str) or name not in _systems:
        raise UserError(f"checkpoint {folder}: config.json: system {name!r} is none of {', '.join(_systems)}")
    return _systems[name].model.from_pretrained(folder, **changes)
