"""An ONNX file as onnxruntime answers it: what a converted network is compared with, and the last word on a point."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from steepest.basis.errors import ModelError

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


def session_of(path: Path) -> Any:
    """Return onnxruntime's session of a file, on one thread, silent.

    Raises:
        ModelError: onnxruntime cannot load the file.
    """
    # Otherwise its import leaves an identifier of the machine in the user's home; a choice already made stands.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # protobuf, shapes and operators each raise their own
        reason = (str(error).strip().split("\n")[0] or type(error).__name__).rstrip(".")
        raise ModelError(f"onnxruntime cannot load {str(path)!r}: {reason}. Export it again.") from None


@final
class Original:
    """The network of an ONNX file with one input and one output, asked through onnxruntime, one example at a time.

    Raises:
        ModelError: onnxruntime cannot load the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._session = session_of(path)
        entry = self._session.get_inputs()[0]
        batch = entry.shape[0] if entry.shape and isinstance(entry.shape[0], int) else 1
        self._name, self._batch, self._dtype = entry.name, max(1, batch), _TYPES.get(entry.type, np.float32)

    def outputs(self, x: Tensor) -> Tensor:
        """Return the outputs at one example x [*features], [K], in the file's own precision."""
        copies = np.repeat(x.numpy()[None], self._batch, 0).astype(self._dtype)
        answer = torch.as_tensor(self._session.run(None, {self._name: copies})[0])
        return answer[0]
