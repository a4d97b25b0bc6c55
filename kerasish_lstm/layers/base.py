"""What every layer here has of Keras's: its config, written and read, and its trainable flag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, cast

from torch import nn

from ..serialization.classes import CLASSES
from ..serialization.entry import Entry
from ..serialization.policies import Device, DType
from ..serialization.reader import Reader, from_config
from ..serialization.writer import Target, Writer


class KerasLayer(nn.Module):
    """A module that Keras has too.

    ``class Mine(KerasLayer, keras_classes=("Its", ...))`` enters a class by Keras's names of it.
    """

    _keras_classes: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls, *, keras_classes: tuple[str, ...] = (), **options: Any) -> None:
        super().__init_subclass__(**options)
        if keras_classes:  # else it is a subclass of a user, or a lazy one
            cls._keras_classes = keras_classes
            CLASSES.update(dict.fromkeys(keras_classes, cls))

    def __setattr__(self, name: str, value: Any) -> None:
        # torch would register a Parameter under the name of a property, which fails.
        own = getattr(type(self), name, None) if name == "states" else None
        if isinstance(own, property):
            own.__set__(self, value)
        else:
            super().__setattr__(name, value)

    @property
    def trainable(self) -> bool:
        """Whether any parameter takes a gradient; setting it sets all of them."""
        return any(p.requires_grad for p in self.parameters())

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for parameter in self.parameters():  # one by one: torch refuses lazy ones in a call for all
            parameter.requires_grad = bool(value)

    # What it tells those that hold it

    @property
    def keras_class(self) -> str:
        """Keras's name of its class."""
        return self._keras_classes[0]

    def input_parts(self) -> list[Any]:
        """The LSTMs or cells in it that see its input."""
        raise NotImplementedError

    @property
    def output_size(self) -> int:
        """The number of features of its output."""
        raise NotImplementedError

    @property
    def output_count(self) -> int:
        """How many outputs a call gives before the states."""
        return 1

    @property
    def state_count(self) -> int:
        """How many tensors its state is: two for each LSTM."""
        return 2 * len(self.input_parts())

    def get_config(self, target: Target = "keras") -> dict[str, Any]:
        """The config from which Keras makes the same layer: ``keras.layers.X.from_config(config)``.

        Args:
            target: ``"keras"`` (Keras 3) or ``"tf_keras"`` (Keras 2).

        Returns:
            Entry by entry what that Keras's own ``get_config()`` gives, and where they are not the
            defaults ``use_cudnn`` and ``implementation`` (Keras 3 takes them and forgets them) and
            tf_keras's ``seed``. A layer without a name has no ``name`` entry.
            ``input_size``, ``device`` and ``dropout_style`` have no place in it:
            :func:`kerasish_lstm.save_safetensors` keeps the first and the last beside the config.

        Raises:
            ConfigError: what the target has no word for: a callable, ``time_major``, an activation.

        Each Keras has one ``hard_sigmoid``; that of the other generation comes as a function that
        :func:`kerasish_lstm.register_keras_objects` makes known to it.
        """
        return Writer(target).config(self)

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any] | Sequence[Any],
        input_size: int | None = None,
        *,
        version: str | None = None,
        device: Device = None,
        dtype: DType = None,
    ) -> Self:
        """A new layer of a config of any Keras, its weights initialized as the config says.

        Args:
            config: what ``layer.get_config()`` gives in Keras 1, 2, 3, tf.keras or tf_keras, alone
                or as ``{"class_name": ..., "config": ...}``.
            input_size: the number of features. None takes it from the config where that says it
                (``batch_input_shape``, ``build_config``), and else gives a layer that learns it at
                its first call: a :class:`LazyLSTM` for an :class:`LSTM`.
            version: the Keras that wrote it: ``"1.2.2"``, ``"2.2.4"``, ``"2.2.4-tf"``, ``"3.5.0"``.
                None: see :func:`kerasish_lstm.config.detected_version`. It decides the default
                ``recurrent_activation``, which ``hard_sigmoid`` is meant, the style of dropout,
                what Keras 1's names are, and what Bidirectional gives at masked steps.
            device, dtype: as in the constructor; dtype replaces the config's.

        Raises:
            ConfigError: an unknown entry (the nearest known one is named), a config of another
                class (which is named), code of the model's author.
        """
        options = {"version": version, "device": device, "dtype": dtype}
        return cast(Self, from_config(cls, config, input_size, **options))  # type: ignore[arg-type]

    def _write(self, writer: Writer) -> dict[str, Any]:
        """Its config, for one Keras."""
        raise NotImplementedError

    @classmethod
    def _read(cls, reader: Reader, entry: Entry, size: int | None) -> Any:
        """One of a config, for ``size`` features; None: the config says it, or a call will."""
        raise NotImplementedError
