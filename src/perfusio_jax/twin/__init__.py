"""The twin: a pure decision and a pure gate, with everything effectful around them."""

from .gate import DEFAULT_RESOLUTION as DEFAULT_RESOLUTION
from .gate import GateLimits as GateLimits
from .gate import GateRequest as GateRequest
from .gate import GateVerdict as GateVerdict
from .gate import gate as gate
from .gate import operator_edits as operator_edits
